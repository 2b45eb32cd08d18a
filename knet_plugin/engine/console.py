"""What a run of our tools shows: its own lines and errors, not the notices of the hosts, which go to the log file.

The hosts log and print to ``sys.stdout`` and warn on ``sys.stderr``: hundreds of lines before the first iteration.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO

from mmengine.logging import MMLogger, print_log

import knet_plugin

__all__ = ['Screen', 'current_screen', 'quiet_console']

# Packages whose prints and warnings are for their developers.
_HOSTS = ('mmcv', 'mmdet', 'mmengine', 'mmseg', 'panopticapi', 'pycocotools', 'torch', 'torchvision')
# Parts of what the hosts log as a warning in every run, whatever the user does.
_USUAL = ('The prefix is not set in metric class', 'will be deprecated', 'Failed to search registry with scope',
          'Reach the end of the dataloader', '`save_param_scheduler` is True but')


class Screen:
    """Lines, and in a terminal a last line that is replaced in place."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.live = stream.isatty()
        self._status = ''

    def line(self, text: str) -> None:
        """Show lines that stay."""
        self._replace(f'{text}\n', self._status)

    def status(self, text: str) -> None:
        """In a terminal, replace the last line; otherwise show nothing."""
        if self.live:
            self._replace('', text[:shutil.get_terminal_size().columns - 1])

    def close(self) -> None:
        """Remove the last line."""
        self._replace('', '')

    def _replace(self, lines: str, status: str) -> None:
        self.stream.write(('\r\x1b[K' if self._status else '') + lines + status)
        self.stream.flush()
        self._status = status


_screen: Screen | None = None


def current_screen() -> Screen | None:
    """Return the screen inside ``quiet_console``; None elsewhere, where the hosts show what happens."""
    return _screen


@contextlib.contextmanager
def quiet_console() -> Iterator[Screen]:
    """Keep what the hosts log, print and warn inside the block off the screen; mmengine's log file has all of it.

    Errors stay, and so do prints and warnings of the user's own modules and of ours. Build the runner inside the block:
    mmengine keeps the ``sys.stdout`` that it finds.
    """
    global _screen
    before, _screen = _screen, Screen(sys.stdout)
    stream = HostStream(_screen)
    stream.note(*knet_plugin.import_notices)
    try:
        with contextlib.redirect_stdout(stream), warnings.catch_warnings():
            warnings.showwarning = stream.show_warning
            yield _screen
    finally:
        stream.flush()
        _screen.close()
        _screen = before


class HostStream:
    """Stands in for ``sys.stdout``: notes in the log file what hosts write, and shows the rest."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._parts: dict[bool, str] = {True: '', False: ''}  # incomplete lines of hosts, and of others
        self._notes: list[str] = []  # lines for the log file, until there is one

    def __getattr__(self, name: str) -> Any:
        return getattr(self._screen.stream, name)

    def write(self, text: str) -> int:
        """Take what a logger, ``print`` or another caller writes."""
        caller = sys._getframe(1)
        if caller.f_code is logging.StreamHandler.emit.__code__:
            self._logged(caller.f_locals['record'], caller)
            return len(text)
        by_host = _package(caller) in _HOSTS
        *lines, self._parts[by_host] = (self._parts[by_host] + text).split('\n')
        for line in lines:
            if by_host:
                self.note(line)
            else:
                self._screen.line(line)
        return len(text)

    def note(self, *lines: str) -> None:
        """Write lines to mmengine's log file, now or when there is one."""
        self._notes += lines
        if self._notes and MMLogger.get_current_instance().log_file:
            notes, self._notes = self._notes, []
            for line in notes:
                print_log(line, 'current')

    def show_warning(self, message: Warning | str, category: type[Warning], filename: str, lineno: int,
                     file: Any = None, line: str | None = None) -> None:
        """Stand in for ``warnings.showwarning``."""
        if 'site-packages' in filename and 'knet_plugin' not in filename:
            self.note(warnings.formatwarning(message, category, filename, lineno, line).rstrip())
        else:
            self._screen.line(f'warning: {message}')

    def flush(self) -> None:
        """Show an incomplete line, such as the prompt of a debugger."""
        if self._parts[False]:
            self._screen.close()
            self._screen.stream.write(self._parts[False])
            self._parts[False] = ''
        self._screen.stream.flush()

    def _logged(self, record: logging.LogRecord, frame: FrameType | None) -> None:
        """Show errors, warnings and what others than hosts log; mmengine writes the record to the log file too."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            if not any(words in text for words in _USUAL):
                self._screen.line(f'{record.levelname.lower()}: {text}')
            return
        while frame and _module(frame).startswith(('logging', 'mmengine.logging')):
            frame = frame.f_back
        if frame and _module(frame) != __name__ and _package(frame) not in _HOSTS:
            self._screen.line(text)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get('__name__', ''))


def _package(frame: FrameType) -> str:
    return _module(frame).partition('.')[0]
