"""Folders that appear at once."""

import contextlib
import errno
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ['whole_folder']


@contextlib.contextmanager
def whole_folder(folder: Path, replace: bool) -> Iterator[Path]:
    """Yield a draft, a hidden folder beside ``folder``, which becomes ``folder`` after the block.

    If the block fails, the draft is removed and ``folder`` is as before.

    Args:
        replace: Replace ``folder`` even if it has files by then.

    Raises:
        FileExistsError: ``folder`` has files by then, and ``replace`` is not set.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft, old = (folder.with_name(f'.{folder.name}.{uuid.uuid4().hex}') for _ in range(2))
    try:
        draft.mkdir()
        yield draft
        if replace and folder.exists():
            folder.rename(old)
        try:
            draft.rename(folder)  # replaces an empty folder, but no other
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise FileExistsError(f'{folder} has files that were not there before') from error
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for rest in (draft, old):
            shutil.rmtree(rest, ignore_errors=True)
