"""Reading foreign options so that none is overlooked, and saying what became of those that have no place here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

__all__ = ['MigrationError', 'Options', 'Remark', 'Report', 'bare_type']


class MigrationError(ValueError):
    """A config has options that have no counterpart here. The message lists each with its path and value."""


class Remark(NamedTuple):
    """An option that is not in the result, and why; or one that somebody has to look at."""

    path: str
    value: Any
    reason: str
    by_hand: bool

    def __str__(self) -> str:
        value = repr(self.value)
        if len(value) > 80:
            value = f'{value[:77]}...'
        return f'{"by hand" if self.by_hand else "dropped"}  {self.path}={value}: {self.reason}'


class Report:
    """What a migration left out, and what stands in its way."""

    def __init__(self) -> None:
        self.remarks: list[Remark] = []
        self.problems: list[str] = []

    def drop(self, path: str, value: Any, reason: str) -> None:
        """Note an option that has no effect, or none any more."""
        self.remarks.append(Remark(path, value, reason, by_hand=False))

    def by_hand(self, path: str, value: Any, reason: str) -> None:
        """Note an option that nobody but the user can translate. The rest goes on without it."""
        self.remarks.append(Remark(path, value, reason, by_hand=True))

    def refuse(self, path: str, value: Any, reason: str) -> None:
        """Note an option without which the result would be another model. :meth:`check` raises it."""
        self.problems.append(f'{path}={value!r}: {reason}')

    def check(self) -> None:
        """Stop where something was refused.

        Raises:
            MigrationError: Something was; the message lists all of it.
        """
        if self.problems:
            raise MigrationError('the config cannot be migrated:\n  ' + '\n  '.join(self.problems))

    def lines(self) -> list[str]:
        """A line for each remark; what several stages have in common is said once, as ``[*]``."""
        merged = [remark._replace(path=re.sub(r'\[\d+\]', '[*]', remark.path)) for remark in self.remarks]
        lines = [str(remark) for remark in sorted(merged, key=lambda remark: not remark.by_hand)]
        return list(dict.fromkeys(lines))


class Options:
    """The options of one foreign dict, each of which has to be taken before the ``with`` block ends.

    Args:
        cfg: The dict; it is not changed.
        path: Where it is in the config, for messages.
        report: Where to say what is left.

    Raises:
        MigrationError: If ``cfg`` is no dict.
    """

    def __init__(self, cfg: Any, path: str, report: Report) -> None:
        if not isinstance(cfg, Mapping):
            raise MigrationError(f'{path} must be a dict, got {cfg!r}')
        self._left = dict(cfg)
        self.path = path
        self.report = report

    def __enter__(self) -> Options:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if kind is None:
            for name, value in self._left.items():
                self.report.refuse(self.at(name), value, 'unknown option')

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def at(self, name: str) -> str:
        """The full path of an option."""
        return f'{self.path}.{name}' if self.path else name

    def take(self, name: str, default: Any = None) -> Any:
        """An option's value, which the caller translates; ``default`` is that of the foreign code."""
        return self._left.pop(name, default)

    def require(self, name: str) -> Any:
        """The value of an option that has no default.

        Raises:
            MigrationError: If it is missing.
        """
        if name not in self._left:
            raise MigrationError(f'{self.at(name)} is missing')
        return self._left.pop(name)

    def some(self, *names: str) -> dict[str, Any]:
        """Those of the options that are given; their names and defaults are the same here."""
        return {name: self._left.pop(name) for name in names if name in self._left}

    @property
    def names(self) -> list[str]:
        """What is left."""
        return list(self._left)

    def rest(self) -> dict[str, Any]:
        """All that is left, unchanged: options of the hosts, which are the same for them."""
        left, self._left = self._left, {}
        return left

    def drop(self, names: Iterable[str], reason: str) -> None:
        """Leave options out that have no effect."""
        for name in names:
            if name in self._left:
                self.report.drop(self.at(name), self._left.pop(name), reason)

    def by_hand(self, names: Iterable[str], reason: str) -> None:
        """Leave options out that the user has to translate."""
        for name in names:
            if name in self._left:
                self.report.by_hand(self.at(name), self._left.pop(name), reason)

    def only(self, name: str, supported: Any, reason: str, default: Any = None) -> None:
        """Accept a single value of an option, given or by default; it needs no place in the result."""
        value = self._left.pop(name, supported if default is None else default)
        if value != supported:
            self.report.refuse(self.at(name), value, reason)

    def only_relu(self, *names: str) -> None:
        """Accept activations that are ReLU; whether they work in place makes no difference to the result."""
        for name in names:
            value = self._left.pop(name, dict(type='ReLU'))
            if not isinstance(value, Mapping) or value.get('type') != 'ReLU' or value.keys() - {'type', 'inplace'}:
                self.report.refuse(self.at(name), value, 'only ReLU is supported')

    def only_type(self, *supported: str) -> str:
        """Accept some types, with or without a scope; returns the bare name."""
        given = self.require('type')
        name = bare_type(given)
        if name not in supported:
            self.report.refuse(self.at('type'), given, f'only {" or ".join(supported)} is supported')
        return name


def bare_type(given: Any) -> str:
    """A registered name without its scope; the name of a class."""
    return given.rpartition('.')[2] if isinstance(given, str) else getattr(given, '__name__', str(given))
