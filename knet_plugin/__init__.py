"""K-Net (NeurIPS 2021) for OpenMMLab 2.0: one set of kernels for semantic, instance and panoptic segmentation.

Importing the package registers every part whose host package is installed. ``compat.py`` and ``registry.py`` hold all
that it changes outside its own registries. Without mmengine, or with ``KNET_RUNTIME_ONLY`` in the environment, nothing
is registered: only ``knet_plugin.runtime`` works.
"""

import contextlib
import importlib
import io
import os
import warnings
from typing import TYPE_CHECKING, Any

from knet_plugin import compat

if TYPE_CHECKING:
    from knet_plugin.inference.optimize import optimize_for_inference
    from knet_plugin.inference.predictor import Predictor
    from knet_plugin.semantic.attach import attach

__version__ = '0.1.0'
__all__ = ['Predictor', '__version__', 'attach', 'optimize_for_inference']

# Modules to import, by the host package that they need.
_REGISTERING = {
    '': ('core', 'engine', 'inference.exported_model', 'inference.optimize', 'inference.picture_hooks',
         'inference.report', 'datasets.check', 'visualization.visualizer'),
    'mmdet': ('detection', 'datasets.loading', 'datasets.copy_paste', 'datasets.instances', 'datasets.panoptic',
              'datasets.metrics'),
    'mmseg': ('semantic', 'datasets.label_maps'),
}
# Public functions, and the module of each, imported on first use.
_LAZY = {
    'Predictor': 'knet_plugin.inference.predictor',
    'attach': 'knet_plugin.semantic.attach',
    'optimize_for_inference': 'knet_plugin.inference.optimize',
}


_HAS_HOSTS = compat.installed('mmengine') and not os.environ.get('KNET_RUNTIME_ONLY')


def _register() -> None:
    compat.check_host_packages()
    compat.find_configs_of_forks()
    compat.allow_host_checkpoints()
    compat.free_failed_managers()
    if compat.installed('mmseg'):
        compat.name_stock_knet()
    for host, modules in _REGISTERING.items():
        if not host or compat.installed(host):
            for module in modules:
                importlib.import_module(f'{__name__}.{module}')
    importlib.import_module(f'{__name__}.registry').expose_unprefixed_names()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    if not _HAS_HOSTS:
        compat.check_host_packages()  # says what to install
        raise compat.HostPackageError(f'knet_plugin.{name} needs the host packages: unset KNET_RUNTIME_ONLY')
    return getattr(importlib.import_module(_LAZY[name]), name)


# The hosts print and warn which optional packages they cannot import; our tools write that to the log file.
with contextlib.redirect_stdout(io.StringIO()) as _printed, warnings.catch_warnings(record=True) as _warned:
    if _HAS_HOSTS:
        _register()
import_notices = [*_printed.getvalue().splitlines(), *(str(warning.message) for warning in _warned)]
