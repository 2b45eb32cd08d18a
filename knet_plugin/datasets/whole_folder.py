"""Folders that appear at once."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ['whole_folder']


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a draft, a hidden folder beside ``folder``, which replaces ``folder`` after the block.

    If the block fails, the draft is removed and ``folder`` is as before.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft, old = (folder.with_name(f'.{folder.name}.{uuid.uuid4().hex}') for _ in range(2))
    try:
        draft.mkdir()
        yield draft
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for rest in (draft, old):
            shutil.rmtree(rest, ignore_errors=True)
