"""Registries of K-Net: children of mmengine's under the scope ``knet_plugin``.

``type='knet_plugin.KNet'`` in a config makes mmengine import this module, and with it the package, which registers
every part whose host is installed.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

from knet_plugin.compat import HostPackageError, require

__all__ = ['DATASETS', 'DATA_SAMPLERS', 'HOOKS', 'MODELS', 'SCOPE', 'STRATEGIES', 'TASK_UTILS', 'TRANSFORMS',
           'UNPREFIXED', 'expose_unprefixed_names']

SCOPE = 'knet_plugin'
UNPREFIXED = ('IterativeDecodeHead', 'KNet', 'KNetCriterion', 'KNetFusionHead', 'KernelClassifier', 'KernelHead',
              'KernelInteraction', 'KernelIterHead', 'KernelUpdateHead', 'KernelUpdater', 'LocalizationFPN',
              'MaskHungarianAssigner')
"""Names that also work without ``knet_plugin.`` in front."""


class _Registry(Registry):
    """A registry that names the missing host package if a class is not registered."""

    def get(self, key: str) -> type | None:
        """Return the class registered as ``key``, or None.

        Raises:
            HostPackageError: There is none, and mmdet or mmseg is not installed: it may be a part that needs it.
        """
        found = super().get(key)
        if found is None:
            try:
                for host in ('mmdet', 'mmseg'):
                    require(host)
            except HostPackageError as error:
                raise HostPackageError(f'{SCOPE} has no {self.name} {key!r} here: {error}') from error
        return found


def _child(parent: Registry) -> Registry:
    return _Registry(parent.name, parent=parent, scope=SCOPE, locations=[SCOPE])


DATASETS = _child(MMENGINE_DATASETS)
DATA_SAMPLERS = _child(MMENGINE_DATA_SAMPLERS)
HOOKS = _child(MMENGINE_HOOKS)
MODELS = _child(MMENGINE_MODELS)
STRATEGIES = _child(MMENGINE_STRATEGIES)
TASK_UTILS = _child(MMENGINE_TASK_UTILS)
TRANSFORMS = _child(MMENGINE_TRANSFORMS)


def expose_unprefixed_names() -> None:
    """Register ``UNPREFIXED`` in mmengine's root registries, for configs written without a prefix.

    Every scope searches its own registry first and the root second: ``KernelUpdateHead`` means mmseg's own under mmseg,
    and ours under mmdet, which has none. A name that the root already has stays as it is.
    """
    for registry, root in ((MODELS, MMENGINE_MODELS), (TASK_UTILS, MMENGINE_TASK_UTILS)):
        for name in UNPREFIXED:
            if name in registry.module_dict and name not in root.module_dict:
                root.register_module(name=name, module=registry.module_dict[name])
