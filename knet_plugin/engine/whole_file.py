"""Writing a file or folder that appears complete or not at all."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ['whole_file']


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Let the block write a draft beside ``path``, and give it that name when the block has succeeded.

    Args:
        path: The file or folder. A file that exists is replaced; what the block leaves is flushed to the disk first.

    Yields:
        Path of the draft, ``.NAME.<random>``. It is removed if the block fails.
    """
    path = Path(path)
    draft = path.with_name(f'.{path.name}.{uuid.uuid4().hex}')
    try:
        yield draft
        if draft.is_file():
            with draft.open('rb+') as file:
                os.fsync(file.fileno())  # some file systems report only now that the disk is full
        draft.replace(path)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)
