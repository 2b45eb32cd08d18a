"""The hook that checks the data before a run builds its data sets."""

import functools
import sys
from collections.abc import Callable
from typing import Any

from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import FlexibleRunner, Runner

from knet_plugin.datasets.check.check import check_config
from knet_plugin.datasets.check.report import DataError
from knet_plugin.registry import HOOKS

__all__ = ['DataCheckHook']

# What a method of the runner needs.
_SECTIONS = dict(train=('train', 'val'), val=('val',), test=('test',))
_MARK = '_knet_data_check'


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Stops a run whose data cannot be used before it reads the data; see ``check_config``.

    mmengine builds its hooks before its data sets, but tells them about the runner only later. So the constructor looks
    for the runner that is being built, and lets its ``train`` check the data for training and validation first, ``val``
    those for validation, and ``test`` those for testing. Data that a run does not need may be missing. Warnings go to
    the log. The first process reads the files; all of them stop.

    Outside of a runner's constructor, the hook does nothing.

    Args:
        limit: At most so many images and label maps of a data set are opened.
    """

    def __init__(self, limit: int = 200) -> None:
        if limit < 1:
            raise ValueError(f'limit must be positive, got {limit}')
        self.limit = limit
        runner = _runner_under_construction()
        if runner is not None and not hasattr(runner, _MARK):  # two such hooks check once
            setattr(runner, _MARK, True)
            for name, sections in _SECTIONS.items():
                setattr(runner, name, self._checked(runner, getattr(runner, name), sections))

    def _checked(self, runner: Any, method: Callable, sections: tuple[str, ...]) -> Callable:
        """The method of the runner, after the check."""
        @functools.wraps(method)
        def checked(*args: Any, **kwargs: Any) -> Any:
            self.check(runner, sections)
            return method(*args, **kwargs)

        return checked

    def check(self, runner: Any, sections: tuple[str, ...]) -> None:
        """Check the sections of the runner's config; raises a ``DataError`` in all processes."""
        message: list[str | None] = [None]
        if is_main_process():
            report = check_config(runner.cfg, sections, self.limit, get_world_size())
            for finding in report.warnings:
                runner.logger.warning(str(finding))
            try:
                report.raise_errors()
            except DataError as error:
                message = [str(error)]
        broadcast_object_list(message)
        if message[0] is not None:
            raise DataError(message[0])


def _runner_under_construction() -> Any:
    """The runner whose constructor calls, at any depth, the function that calls this one."""
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get('self')
        if frame.f_code.co_name == '__init__' and isinstance(owner, Runner | FlexibleRunner):
            return owner
        frame = frame.f_back  # type: ignore[assignment]
    return None
