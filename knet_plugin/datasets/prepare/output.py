"""What may be replaced by a prepared folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from knet_plugin.datasets.description import DATA_FILE, DataDescription

__all__ = ['check_output']

_CONTENT = {DATA_FILE, 'images', 'annotations', 'labels', 'samples'}


def check_output(folder: Path, force: bool, inputs: Sequence[Path]) -> None:
    """Check that ``folder`` may be written.

    Raises:
        ValueError: It exists and is not empty, unless ``force`` is set and it holds prepared data and nothing else; or
            it holds an input, or lies in one.
    """
    for path in inputs:
        if path == folder or folder in path.parents:
            raise ValueError(f'--out {folder}: {path} is in this folder; give another one')
        if path.is_dir() and path in folder.parents:
            raise ValueError(f'--out {folder} lies in the input folder {path}; give another one')
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not _is_prepared(folder):
        raise ValueError(f'--out {folder} exists, and is no folder that knet data prepare has made; give another one')
    if not force:
        raise ValueError(f'--out {folder} exists; replace it with --force, or give another folder')


def _is_prepared(folder: Path) -> bool:
    try:
        DataDescription.read(folder / DATA_FILE)
    except ValueError:
        return False
    return {path.name for path in folder.iterdir()} <= _CONTENT
