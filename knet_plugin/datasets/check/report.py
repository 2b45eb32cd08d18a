"""What a check finds, and how it is shown."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ['UNEXPECTED', 'Census', 'DataError', 'Finding', 'Report', 'explain']


# What values of any type and depth in a file raise.
UNEXPECTED = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)


class DataError(ValueError):
    """The data of a config cannot be used; the message lists every error."""


@dataclass(frozen=True)
class Finding:
    """One fault: what is wrong, how often, and what to do about it; and its file or folder."""

    message: str
    file: str = ''

    def __str__(self) -> str:
        """One line for a terminal or log."""
        return f'{self.file}: {self.message}' if self.file else self.message


@dataclass
class Census:
    """What one data set holds.

    Attributes:
        section: 'train', 'val' or 'test'.
        images: Images that a run uses.
        objects: Objects (instances) or segments (panoptic) of each class.
        pixels: Pixels of each class, where the check has counted them.
        ignored: Share of pixels without a class, 0 .. 1, where the check has counted them.
        dropped: Images that the run does not use, by reason.
        objects_per_image: Median and maximum of the objects to detect in an image.
        remarks: For example how many label maps were read.
        file: The annotation file, or the folder of the label maps.
        sampled: Whether only a part of the label maps was read.
    """

    section: str
    images: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    pixels: dict[str, int] = field(default_factory=dict)
    ignored: float | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    objects_per_image: tuple[int, int] | None = None
    remarks: list[str] = field(default_factory=list)
    file: str = ''
    sampled: bool = False

    @property
    def occurring(self) -> set[str]:
        """The classes that occur."""
        return {name for counts in (self.objects, self.pixels) for name, number in counts.items() if number}

    def summary(self, kernels: int | None) -> str:
        """One line on images, objects and ignored pixels."""
        parts = [f'{self.images} images']
        parts += [f'{number} dropped ({reason})' for reason, number in self.dropped.items() if number]
        if self.objects_per_image is not None:
            parts.append('objects per image: median {}, at most {}'.format(*self.objects_per_image)
                         + (f', for {kernels} kernels' if kernels else ''))
        if self.ignored is not None:
            parts.append(f'{self.ignored:.1%} of the pixels ignored')
        return f'{self.section}: ' + '; '.join(parts + self.remarks)


@dataclass
class Report:
    """All findings of a check, and the census of each data set; ``kernels`` are those of the model for objects."""

    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    census: list[Census] = field(default_factory=list)
    kernels: int | None = None

    def error(self, message: str, file: str | Path = '') -> None:
        """Add a fault that makes a run fail or its result useless."""
        self._add(self.errors, Finding(message, str(file)))

    def warn(self, message: str, file: str | Path = '') -> None:
        """Add a fault that a run survives."""
        self._add(self.warnings, Finding(message, str(file)))

    @contextmanager
    def guard(self, subject: str, file: str | Path) -> Iterator[None]:
        """Make an error of what a rule on the ``subject`` raises because the file has values that it did not expect."""
        try:
            yield
        except UNEXPECTED as error:
            self.error(f'{subject} cannot be checked, because the file has an unexpected value: {explain(error)}', file)

    @staticmethod
    def _add(findings: list[Finding], finding: Finding) -> None:
        # Data sets and evaluators share files, but may write their folders with or without a slash at the end.
        if all((each.message, os.path.normpath(each.file)) != (finding.message, os.path.normpath(finding.file))
               for each in findings):
            findings.append(finding)

    def merge(self, other: 'Report') -> None:
        """Add the findings and the census of another check."""
        for mine, others in ((self.errors, other.errors), (self.warnings, other.warnings)):
            for finding in others:
                self._add(mine, finding)
        self.census += other.census
        self.kernels = self.kernels or other.kernels

    def raise_errors(self) -> None:
        """Raise a ``DataError`` with all errors, if there are any."""
        if self.errors:
            number = f'{len(self.errors)} errors in the data:\n  ' if len(self.errors) > 1 else ''
            raise DataError(number + '\n  '.join(map(str, self.errors)))

    def text(self) -> str:
        """Census and findings for a terminal."""
        lines = _table(self.census) + [census.summary(self.kernels) for census in self.census]
        lines += [''] if lines else []
        for name, findings in (('error', self.errors), ('warning', self.warnings)):
            lines += [f'{name}: {finding}' for finding in findings]
        lines.append(f'{_number(self.errors, "error")}, {_number(self.warnings, "warning")}')
        return '\n'.join(lines)


def explain(error: Exception) -> str:
    """The text of an exception with its type, without which ``KeyError: 3`` would be a mere 3."""
    return f'{type(error).__name__}: {error}'


def _number(findings: list[Finding], name: str) -> str:
    return f'{len(findings) or "no"} {name}{"" if len(findings) == 1 else "s"}'


def _table(censuses: list[Census]) -> list[str]:
    """A row for each class, a column for the objects and one for the share of pixels of each data set."""
    columns: list[tuple[str, dict[str, str]]] = []
    for census in censuses:
        if census.objects:
            columns.append((f'{census.section} objects', {name: str(n) for name, n in census.objects.items()}))
        if census.pixels:
            total = sum(census.pixels.values()) or 1  # without ignored pixels
            shares = {name: f'{n / total:.2%}' for name, n in census.pixels.items()}
            columns.append((f'{census.section} pixels', shares))
    classes = list(dict.fromkeys(name for _, cells in columns for name in cells))
    if not classes:
        return []
    width = max(map(len, ['class', *classes]))
    rows = [['class'.ljust(width), *(title for title, _ in columns)]]
    rows += [[name.ljust(width), *(cells.get(name, '-').rjust(len(title)) for title, cells in columns)]
             for name in classes]
    return ['  '.join(row) for row in rows] + ['']
