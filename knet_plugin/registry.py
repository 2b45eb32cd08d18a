"""Registries of K-Net, children of mmengine's under the scope ``knet_plugin``.

mmengine imports this module by itself as soon as a config says ``type='knet_plugin.Something'``, and the modules
named in ``locations`` when it looks ``Something`` up. Keep it light: mmengine swallows an ``ImportError`` raised here.
"""

from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

__all__ = ['MODELS', 'SCOPE', 'expose_unprefixed_names']

SCOPE = 'knet_plugin'

MODELS = Registry('model', parent=MMENGINE_MODELS, scope=SCOPE, locations=['knet_plugin.core', 'knet_plugin.semantic'])


def expose_unprefixed_names() -> None:
    """Let every scope find our names without prefix, after its own.

    A scope that does not know a name asks mmengine's root registry, so that is where the names go: ``KernelUpdateHead``
    means mmseg's own under mmseg, and ours under mmdet, which has none.
    """
    for name, module in MODELS.module_dict.items():
        if name not in MMENGINE_MODELS.module_dict:
            MMENGINE_MODELS.register_module(name=name, module=module)
