"""Registries of K-Net: children of mmengine's under the scope ``knet_plugin``.

``type='knet_plugin.KNet'`` in a config makes mmengine import this module, and with it the package, which registers
every part whose host is installed.
"""

from mmengine import registry as mmengine_registry
from mmengine.registry import Registry

from knet_plugin.compat import HostPackageError, require

__all__ = ['DATASETS', 'DATA_SAMPLERS', 'HOOKS', 'LOG_PROCESSORS', 'METRICS', 'MODELS', 'SCOPE', 'STRATEGIES',
           'TASK_UTILS', 'TRANSFORMS', 'UNPREFIXED', 'VISUALIZERS', 'expose_unprefixed_names']

SCOPE = 'knet_plugin'
# Names that also work without ``knet_plugin.`` in front.
UNPREFIXED = ('IterativeDecodeHead', 'KNet', 'KNetCriterion', 'KNetFusionHead', 'KernelClassifier', 'KernelHead',
              'KernelInteraction', 'KernelIterHead', 'KernelUpdateHead', 'KernelUpdater', 'LocalizationFPN',
              'MaskHungarianAssigner')


class _Registry(Registry):
    """A registry whose errors name a missing host package, because a class may not be registered without it."""

    def get(self, key: str) -> type | None:
        """Return the class registered as ``key``, or None if there is none although both hosts are installed."""
        found = super().get(key)
        if found is None and '.' not in key.removeprefix(f'{SCOPE}.'):  # mmengine imports 'package.module.Class' itself
            try:
                require('mmdet')
                require('mmseg')
            except HostPackageError as error:
                raise HostPackageError(f'{SCOPE} has no {self.name} {key!r}: the name is wrong, or the part needs a '
                                       f'package that is missing here. {error}') from error
        return found


def _child(parent: Registry) -> Registry:
    return _Registry(parent.name, parent=parent, scope=SCOPE, locations=[SCOPE])


DATASETS = _child(mmengine_registry.DATASETS)
DATA_SAMPLERS = _child(mmengine_registry.DATA_SAMPLERS)
HOOKS = _child(mmengine_registry.HOOKS)
LOG_PROCESSORS = _child(mmengine_registry.LOG_PROCESSORS)
METRICS = _child(mmengine_registry.METRICS)
MODELS = _child(mmengine_registry.MODELS)
STRATEGIES = _child(mmengine_registry.STRATEGIES)
TASK_UTILS = _child(mmengine_registry.TASK_UTILS)
TRANSFORMS = _child(mmengine_registry.TRANSFORMS)
VISUALIZERS = _child(mmengine_registry.VISUALIZERS)


def expose_unprefixed_names() -> None:
    """Register ``UNPREFIXED`` in mmengine's root registries, for configs written without a prefix.

    Every scope searches its own registry before the root: ``KernelUpdateHead`` means mmseg's own under mmseg, and ours
    under mmdet, which has none. Names that the root already has stay.
    """
    for registry, root in ((MODELS, mmengine_registry.MODELS), (TASK_UTILS, mmengine_registry.TASK_UTILS)):
        for name in UNPREFIXED:
            if name in registry.module_dict and name not in root.module_dict:
                root.register_module(name=name, module=registry.module_dict[name])
