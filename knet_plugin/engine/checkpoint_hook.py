"""Checkpoints that survive ``kill -9`` and a full disk.

mmengine removes the checkpoint that a new one replaces, then writes the new one under its final name: an interruption
in between leaves none. Here the new file appears when it is complete, and old ones are removed after that.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmengine import hooks
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend

from knet_plugin.checkpoint.whole_file import whole_file
from knet_plugin.registry import HOOKS

__all__ = ['CheckpointHook', 'WholeFileBackend']


class WholeFileBackend(LocalBackend):
    """mmengine's backend for local files, whose files appear complete or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file and make its folder; if that fails, an earlier file of that name stays."""
        path = Path(filepath)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as draft:
                draft.write_bytes(obj)
        except OSError as error:
            size = f'{len(obj) / 2**20:.1f} MiB'
            raise OSError(error.errno, f'{path} ({size}) cannot be written: {error.strerror}') from error


@HOOKS.register_module()
class CheckpointHook(hooks.CheckpointHook):
    """mmengine's hook with the same options; it needs disk space for one more checkpoint.

    A run killed while it writes leaves a draft, ``.NAME.<random>``; one killed between writing and removing leaves one
    checkpoint too many. Remove either by hand.
    """

    file_backend: Any

    def save_now(self, runner: Any, meta: dict) -> str:
        """Save a checkpoint outside the schedule, unless the hook has just saved it, and return its path.

        Args:
            runner: The runner.
            meta: What it stands for: at least ``epoch`` and ``iter``, the finished epochs and iterations.
        """
        name = f'iter_{meta["iter"]}.pth' if self.by_epoch else self.filename_tmpl.format(meta['iter'])
        path = self.file_backend.join_path(self.out_dir, name)
        if self.last_ckpt == path:
            return path
        if not self.by_epoch:
            self._save_checkpoint_with_step(runner, meta['iter'], meta)
            return path
        with _whole_local_files():
            runner.save_checkpoint(self.out_dir, name, self.file_client_args, save_optimizer=self.save_optimizer,
                                   save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=False,
                                   backend_args=self.backend_args)
        if is_main_process():
            Path(runner.work_dir, 'last_checkpoint').write_text(path)
        return path

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        with _whole_local_files(), self._removals_at_the_end():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        if self.save_best:  # without any prediction, mmdet's metrics report nothing
            metrics = {**dict.fromkeys(set(self.key_indicators) - {'auto'}), **metrics}
        with _whole_local_files(), self._removals_at_the_end():
            super()._save_best_checkpoint(runner, metrics)

    @contextlib.contextmanager
    def _removals_at_the_end(self) -> Iterator[None]:
        """Postpone what mmengine removes inside the block to its end; if the block fails, remove nothing."""
        backend = self.file_backend
        self.file_backend = postponed = _PostponedRemovals(backend)
        try:
            yield
        finally:
            self.file_backend = backend
        current = {self.last_ckpt, getattr(self, 'best_ckpt_path', None),
                   *getattr(self, 'best_ckpt_path_dict', {}).values()}
        for remove, path in postponed.removals:
            if path not in current:  # a new best model may have the name of the old one
                remove(path)


class _PostponedRemovals:
    """A file backend that only notes what to remove."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.removals: list[tuple[Callable[[str], None], str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, filepath: str) -> None:
        self.removals.append((self._backend.remove, filepath))

    def rmtree(self, dir_path: str) -> None:
        self.removals.append((self._backend.rmtree, dir_path))


@contextlib.contextmanager
def _whole_local_files() -> Iterator[None]:
    """Use ``WholeFileBackend`` for local paths inside the block, unless the user registered another backend."""
    # ``backend_args`` would be simpler, but ``FlexibleRunner`` ignores them.
    if type(get_file_backend('')) is not LocalBackend:
        yield
        return
    register_backend('knet_plugin_whole_files', WholeFileBackend, force=True, prefixes='')
    try:
        yield
    finally:
        register_backend('local', LocalBackend, force=True, prefixes='')
