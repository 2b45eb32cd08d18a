"""Registries of K-Net, children of mmengine's under the scope ``knet_plugin``.

mmengine imports this module by itself as soon as a config says ``type='knet_plugin.Something'``, and the modules
named in ``locations`` when it looks ``Something`` up. Keep it light: mmengine swallows an ``ImportError`` raised here.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

__all__ = ['DATASETS', 'DATA_SAMPLERS', 'HOOKS', 'MODELS', 'SCOPE', 'STRATEGIES', 'TASK_UTILS', 'TRANSFORMS',
           'expose_unprefixed_names']

SCOPE = 'knet_plugin'

# Importing the package registers everything.
MODELS = Registry('model', parent=MMENGINE_MODELS, scope=SCOPE, locations=[SCOPE])
TASK_UTILS = Registry('task util', parent=MMENGINE_TASK_UTILS, scope=SCOPE, locations=[SCOPE])
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope=SCOPE, locations=[SCOPE])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope=SCOPE, locations=[SCOPE])
STRATEGIES = Registry('strategy', parent=MMENGINE_STRATEGIES, scope=SCOPE, locations=[SCOPE])
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope=SCOPE, locations=[SCOPE])
DATA_SAMPLERS = Registry('data sampler', parent=MMENGINE_DATA_SAMPLERS, scope=SCOPE, locations=[SCOPE])


def expose_unprefixed_names() -> None:
    """Let every scope find our names without prefix, after its own.

    A scope that does not know a name asks mmengine's root registry, so that is where the names go: ``KernelUpdateHead``
    means mmseg's own under mmseg, and ours under mmdet, which has none.
    """
    for registry in (MODELS, TASK_UTILS, TRANSFORMS, HOOKS):
        root = registry.parent
        for name, module in registry.module_dict.items():
            if name not in root.module_dict:
                root.register_module(name=name, module=module)
