"""Lets ``mmseg::`` and ``mmdet::`` configs be found under the distribution names of the maintained forks.

mmengine looks an external config's package up in a table of distribution names, which holds the original ones only:
'mmseg' means the distribution 'mmsegmentation'. The maintained fork provides the module as 'onedl-mmsegmentation', so
that every config with a ``mmseg::`` base, ours among them, would fail with 'mmsegmentation is not installed'.
"""

import importlib.util

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import is_installed

__all__ = ['find_configs_of_forks']


def find_configs_of_forks() -> None:
    """Name the module itself where the table's distribution is not installed; calling it again changes nothing."""
    for module in ('mmdet', 'mmseg'):
        if not is_installed(MODULE2PACKAGE[module]) and importlib.util.find_spec(module) is not None:
            MODULE2PACKAGE[module] = module
