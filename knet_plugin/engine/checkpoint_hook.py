"""Saves checkpoints so that a run which is killed, or finds the disk full, leaves the last whole one behind.

mmengine writes a checkpoint under its final name from the first byte, and removes the one that it replaces before that.
Here the file gets its name when it is complete, and only then others are removed.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmengine import hooks
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.registry import HOOKS

__all__ = ['CheckpointHook', 'WholeFileBackend', 'save_whole_checkpoints']

_BACKEND = 'knet_plugin_whole_files'
_REPLACED = 'knet_plugin_replaced'
"""Where a checkpoint's message hub has the names of the files that it replaces."""
_LOCAL = ''
"""The prefix of paths that have none, by which mmengine chooses where nobody else has chosen."""
_MIB = 1 << 20


def save_whole_checkpoints() -> None:
    """Put our ``CheckpointHook`` in the place of mmengine's; calling it again changes nothing."""
    HOOKS.register_module(name='CheckpointHook', module=CheckpointHook, force=True)


class WholeFileBackend(LocalBackend):
    """Writes to local files, which are there as a whole or, until then, as they were before."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file: first a draft beside it, ``.NAME.draft``, which then takes the name.

        Raises:
            OSError: It cannot be written. What was there under the name stays, nothing else is left.
        """
        path = Path(filepath)
        draft = path.with_name(f'.{path.name}.draft')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open('wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())  # some disks tell only now that they are full
            draft.replace(path)
            _synchronise(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise OSError(error.errno, f'{path} ({len(obj) / _MIB:.1f} MiB) cannot be written: {error.strerror}'
                          f'{_free_space(path.parent)}; files that were saved before are as they were') from error


def _synchronise(folder: Path) -> None:
    """Have the names in a folder on the disk, before others are removed from it."""
    if os.name == 'posix':
        handle = os.open(folder, os.O_RDONLY)
        try:
            # Not all file systems can do it, and the file has its name already.
            with contextlib.suppress(OSError):
                os.fsync(handle)
        finally:
            os.close(handle)


class CheckpointHook(hooks.CheckpointHook):
    """mmengine's hook, with the same options, that needs room for one checkpoint more, and never has no whole one.

    Local files are written by :class:`WholeFileBackend`; files that a new checkpoint replaces (``max_keep_ckpts``,
    ``save_best``) are removed after it is saved.
    """

    file_backend: Any
    out_dir: str

    def before_train(self, runner: Any) -> None:
        """Choose the folder, and remove there what the resumed run was about to remove when it ended."""
        super().before_train(runner)
        resumed = runner.message_hub.get_info('last_ckpt', '')
        if is_main_process() and os.path.abspath(os.path.dirname(resumed)) == os.path.abspath(self.out_dir):
            for name in runner.message_hub.get_info(_REPLACED, []):
                if name in ('', '.', '..') or name != os.path.basename(name):
                    continue  # not of our writing: a file says what is removed, so nothing beyond the folder may be
                path = self.file_backend.join_path(self.out_dir, name)
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
                elif self.file_backend.isdir(path):
                    self.file_backend.rmtree(path)
        runner.message_hub.update_info(_REPLACED, [])

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        with _whole_local_files(), self._removals_afterwards(runner):
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        with _whole_local_files(), self._removals_afterwards(runner):
            super()._save_best_checkpoint(runner, metrics)

    @contextlib.contextmanager
    def _removals_afterwards(self, runner: Any) -> Iterator[None]:
        """Put off what is removed within the block to its end; if it fails, nothing is removed.

        The checkpoint that is saved in between holds the names, for the case that the run ends before they are removed.
        """
        backend = self.file_backend
        if isinstance(backend, _RemovesLater):  # the best checkpoint is saved, and then the last one once more
            yield
            return
        later = _RemovesLater(backend, lambda names: runner.message_hub.update_info(_REPLACED, names))
        self.file_backend = later
        try:
            yield
        finally:
            self.file_backend = backend
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        later.remove_all(keep={self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best})


@contextlib.contextmanager
def _whole_local_files() -> Iterator[None]:
    """Let mmengine write local files by ``WholeFileBackend`` within the block, unless a config chose another backend.

    Not by ``backend_args``, which ``FlexibleRunner`` does not hand on.
    """
    before = type(get_file_backend(_LOCAL))
    if before is not LocalBackend:  # within another such block, or a user's own
        yield
        return
    register_backend(_BACKEND, WholeFileBackend, force=True, prefixes=_LOCAL)
    try:
        yield
    finally:
        register_backend('local', before, force=True, prefixes=_LOCAL)


class _RemovesLater:
    """A file backend that only notes what is to be removed.

    Args:
        backend: The one that does it in the end.
        note: Is called with the names of all files that are to be removed, whenever they change.
    """

    def __init__(self, backend: Any, note: Callable[[list[str]], None]) -> None:
        self._backend = backend
        self._note = note
        self._removals: dict[str, Callable[[str], None]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, filepath: str) -> None:
        self._put_off(self._backend.remove, filepath)

    def rmtree(self, dir_path: str) -> None:
        self._put_off(self._backend.rmtree, dir_path)

    def _put_off(self, remove: Callable[[str], None], path: str) -> None:
        self._removals[path] = remove
        self._note([os.path.basename(each) for each in self._removals])

    def remove_all(self, keep: set[str | None]) -> None:
        """Do it, except to files that were written anew under the old name."""
        for path, remove in self._removals.items():
            if path not in keep:
                remove(path)
        self._note([])


def _free_space(folder: Path) -> str:
    try:
        return f', {shutil.disk_usage(folder).free / _MIB:.1f} MiB are free'
    except OSError:
        return ''
