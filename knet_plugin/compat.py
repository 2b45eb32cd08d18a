"""The host packages: which versions work, what to install, and four changes that K-Net needs in them.

Two distributions provide the same modules and cannot share an environment: the maintained forks (``onedl-*``) and the
original OpenMMLab packages. A requirement can name only one of them, so the import checks the modules instead.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pickle  # nosec B403
import re
from collections.abc import Callable, Iterable
from importlib import metadata
from logging import WARNING
from typing import Any, NamedTuple

__all__ = ['DISTRIBUTIONS', 'HOSTS', 'Host', 'HostPackageError', 'allow_host_checkpoints', 'check_host_packages',
           'find_configs_of_forks', 'free_failed_managers', 'installed', 'installed_distribution', 'name_stock_knet',
           'release', 'require']


class HostPackageError(RuntimeError):
    """A host package is missing, too old, or cannot be imported.

    Not an ``ImportError``: mmengine ignores those while it imports a registry scope.
    """


class Host(NamedTuple):
    """A package that knet_plugin runs on."""

    module: str
    minimum: str = ''  # oldest version that works
    submodule: str = ''  # must be importable as well
    only_with: str = ''  # needed only where this module is installed
    hint: str = ''  # what to do if the import fails


# Ordered by dependency: each host comes after those it imports.
HOSTS = (
    Host('torch', '2.3'),
    Host('scipy'),
    Host('mmengine', '0.10'),
    Host('mmcv', '2.1', submodule='mmcv._ext',
         hint='mmcv (not mmcv-lite) must be compiled against the installed torch; compile it again with pip\'s '
              '--force-reinstall --no-cache-dir --no-build-isolation'),
    Host('pycocotools', only_with='mmdet'),
    Host('mmdet', '3.3', submodule='mmdet.models', only_with='mmdet'),
    Host('mmseg', '1.2.2', submodule='mmseg.models', only_with='mmseg'),
)

_FIRST = 'pip install torch "setuptools<81" wheel ninja psutil'
# Two commands each, because mmcv is compiled against the torch that is already installed.
DISTRIBUTIONS = {
    'maintained forks': (_FIRST, 'pip install --no-build-isolation "knet_plugin[onedl]"'),
    'original OpenMMLab': (_FIRST, 'pip install --no-build-isolation "knet_plugin[openmmlab]"'),
}


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version for comparison: (2, 13, 0) for '2.13.0+cpu', (0, 11) for '0.11rc2'."""
    match = re.match(r'\d+(\.\d+)*', version)
    if match is None:
        raise ValueError(f'{version!r} is not a version')
    return tuple(int(part) for part in match[0].split('.'))


def installed(module: str) -> bool:
    """Return whether a top-level module can be found, without importing it."""
    return importlib.util.find_spec(module) is not None


def installed_distribution() -> str:
    """Return which of ``DISTRIBUTIONS`` mmengine comes from; the maintained forks if it is not installed."""
    return 'original OpenMMLab' if _has_distribution('mmengine') else 'maintained forks'


def require(module: str) -> None:
    """Raise a ``HostPackageError`` with the commands to install a host package, such as 'mmdet', if it is missing."""
    if not installed(module):
        commands = '\n  '.join(DISTRIBUTIONS[installed_distribution()])
        raise HostPackageError(f'{module} is not installed. Install it with:\n  {commands}')


def check_host_packages(hosts: Iterable[Host] = HOSTS) -> None:
    """Import the host packages; raise a ``HostPackageError`` with all install commands if one cannot be used."""
    problem = next(filter(None, map(_problem_of, hosts)), None)
    if problem is None and not (installed('mmdet') or installed('mmseg')):
        problem = 'neither mmdet (instance and panoptic segmentation) nor mmseg (semantic segmentation) is installed'
    if problem:
        lines = [f'knet_plugin cannot use the packages installed here: {problem}',
                 'Install one of these distributions, in an environment of its own:']
        for name, commands in DISTRIBUTIONS.items():
            lines += [f'  {name}:', *(f'    {command}' for command in commands)]
        raise HostPackageError('\n'.join(lines))


def _problem_of(host: Host) -> str | None:
    """Import a host; return what is wrong with it, or None."""
    if host.only_with and not installed(host.only_with):
        return None
    if not installed(host.module):
        return f'{host.module} is not installed'
    name = host.module
    try:
        version = getattr(importlib.import_module(name), '__version__', '')
        if host.minimum and release(version) < release(host.minimum):
            return f'{name} {version} is too old; {host.minimum} or newer is needed'
        name = host.submodule or name
        importlib.import_module(name)
    except Exception as error:  # A broken binary may raise anything, and mmdet and mmseg assert mmcv's version.
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        return f'{name} cannot be imported: {reason}. {host.hint}'.rstrip('. ')
    return None


def find_configs_of_forks() -> None:
    """Let configs with a ``mmdet::`` or ``mmseg::`` base find it in the maintained forks.

    mmengine looks for them in the distribution that ``MODULE2PACKAGE`` names, which is the original one. Where that is
    not installed but the module is, the module's name replaces it.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    for module in ('mmdet', 'mmseg'):
        if installed(module) and not _has_distribution(MODULE2PACKAGE[module]):
            MODULE2PACKAGE[module] = module


def _has_distribution(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def allow_host_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read mmengine's training checkpoints.

    This is the default since torch 2.6 and refuses mmengine's log history, numpy arrays and numpy scalars. The original
    mmengine could then not resume, and its fork would read the refused file again without protection.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    if release(torch.__version__) < (2, 6):
        return
    reconstruct, scalar = (value.__reduce__()[0] for value in (np.empty(0), np.float64(0)))
    allowed: list[Any] = [HistoryBuffer, np.ndarray, np.dtype, slice]
    # The classes of the dtypes: bool, all integers, float16, float32 and float64.
    allowed += dict.fromkeys(type(np.dtype(code)) for code in np.typecodes['AllInteger'] + '?efd')
    # numpy 2 renamed this module; allow files written by either version.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    # A HistoryBuffer refers to its methods by getattr(HistoryBuffer, name).
    allowed.append((_statistics_method, 'builtins.getattr'))
    torch.serialization.add_safe_globals(allowed)


def _statistics_method(owner: Any, name: str) -> Callable:
    """Stand in for ``getattr`` while a checkpoint is read: return only statistics methods of ``HistoryBuffer``."""
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in HistoryBuffer()._statistics_methods:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not one of the statistics of a HistoryBuffer')


def free_failed_managers() -> None:
    """Let mmengine's managers (scopes, loggers, visualizers) release their lock when they fail.

    They keep it, so every other thread that builds a model would wait for ever.
    """
    from mmengine.utils import ManagerMixin, manager

    create, current = (getattr(ManagerMixin, name).__func__ for name in ('get_instance', 'get_current_instance'))

    @functools.wraps(create)
    def get_instance(cls: Any, name: str, **kwargs: Any) -> Any:
        try:
            return create(cls, name, **kwargs)
        except BaseException:
            manager._release_lock()
            raise

    @functools.wraps(current)
    def get_current_instance(cls: Any) -> Any:
        try:
            return current(cls)
        except BaseException:
            manager._release_lock()
            raise

    ManagerMixin.get_instance = classmethod(get_instance)
    ManagerMixin.get_current_instance = classmethod(get_current_instance)


def name_stock_knet() -> None:
    """Let mmseg's own K-Net head log a warning when it is built: its configs have the names of ours."""
    from mmengine import logging
    from mmseg.models.decode_heads import IterativeDecodeHead

    build = IterativeDecodeHead.__init__

    @functools.wraps(build)
    def announced(self: Any, *args: Any, **kwargs: Any) -> None:
        logging.print_log('this is the K-Net of mmseg, whose configs have the names of ours; for that of knet_plugin, '
                          'give the file of the config: str(knet_plugin.cli.resolve_config(NAME))', 'current',
                          level=WARNING)
        build(self, *args, **kwargs)

    IterativeDecodeHead.__init__ = announced
