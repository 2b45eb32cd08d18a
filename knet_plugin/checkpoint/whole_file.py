"""Writing a file that appears complete or not at all."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ['whole_file']


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield the path of a draft, ``.NAME.<random>``, for the block to write; rename it to ``path`` afterwards.

    A file of that name is replaced. If the block fails, the draft is removed.
    """
    path = Path(path)
    draft = path.with_name(f'.{path.name}.{uuid.uuid4().hex}')
    try:
        yield draft
        with draft.open('rb+') as file:
            os.fsync(file.fileno())  # some file systems report only now that the disk is full
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
