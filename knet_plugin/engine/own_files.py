"""Files of runs on own data: free names for new runs, and the latest run."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

__all__ = ['find_run', 'write_run']


def find_run(folder: Path, name: str, line: str) -> Path | None:
    """Config of the latest run of this name in ``folder``: ``NAME.py``, ``NAME-2.py`` and so on.

    Only configs that have the ``line`` count: that of their data, because data in other folders may have the same name.
    """
    files = itertools.takewhile(Path.is_file, (folder / f'{candidate}.py' for candidate in _names(name)))
    found = [file for file in files if line in file.read_text().splitlines()]
    return found[-1] if found else None


def write_run(text: str, folder: Path, name: str, force: bool = False) -> Path:
    """Write the config of a new run as ``NAME.py``, or under the next free name: ``NAME-2.py`` and so on.

    A name is free if neither the file nor the folder ``NAME`` exists, or if the file has the same text and the folder
    no checkpoint yet. ``force`` replaces the file ``NAME.py`` and removes the folder ``NAME``.

    Returns:
        The file.
    """
    for candidate in _names(name):
        config, run = folder / f'{candidate}.py', folder / candidate
        if force:
            shutil.rmtree(run, ignore_errors=True)
        unused = not config.exists() and not run.exists()
        unstarted = config.is_file() and config.read_text() == text and not any(run.glob('*.pth'))
        if force or unused or unstarted:
            break
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(text)
    return config


def _names(name: str) -> itertools.chain[str]:
    return itertools.chain([name], (f'{name}-{number}' for number in itertools.count(2)))
