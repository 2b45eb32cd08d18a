"""Finding files by the names that annotations give them."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath, PureWindowsPath

__all__ = ['FileNames', 'composed', 'folded']


def composed(name: str) -> str:
    """The name with composed characters; macOS writes 'ä' as two."""
    return unicodedata.normalize('NFC', name)


def folded(name: str) -> str:
    """The name as file systems compare it that ignore case."""
    return composed(composed(name).casefold())


class FileNames:
    """Finds paths by names that may differ in folders, case and composition of characters."""

    _KEYS: tuple[Callable[[PurePosixPath], str], ...] = (
        str, lambda path: composed(str(path)), lambda path: folded(str(path)),
        lambda path: composed(path.name), lambda path: folded(path.name))

    def __init__(self, paths: Iterable[PurePosixPath], with_folders: bool = False):
        """Index ``paths``; ``with_folders``: only those in the same folders are found."""
        self.paths = tuple(paths)
        self._keys = self._KEYS[:3] if with_folders else self._KEYS
        self._found: list[dict[str, list[PurePosixPath]]] = [defaultdict(list) for _ in self._keys]
        for path in self.paths:
            for key, found in zip(self._keys, self._found, strict=True):
                found[key(path)].append(path)

    def find(self, name: str) -> PurePosixPath | None:
        """Return the only path of that name, the most similar one first; '\\' separates folders, too."""
        path = PurePosixPath(PureWindowsPath(name).as_posix())
        for key, found in zip(self._keys, self._found, strict=True):
            if len(candidates := found.get(key(path), [])) == 1:
                return candidates[0]
        return None
