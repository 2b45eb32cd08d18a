"""K-Net (NeurIPS 2021) for OpenMMLab 2.0: one set of kernels for semantic, instance and panoptic segmentation."""

import contextlib
import sys

from knet_plugin.compat import check_host_packages
from knet_plugin.version import __version__

check_host_packages()  # before any of them is imported, so that its message is the one that is read

with contextlib.redirect_stdout(sys.stderr):  # where the forks announce what they cannot import
    from knet_plugin import checkpoint, core, detection, semantic
from knet_plugin.datasets import loading  # noqa: E402
from knet_plugin.engine import class_check, fsdp  # noqa: E402
from knet_plugin.engine.checkpoint_hook import save_whole_checkpoints  # noqa: E402
from knet_plugin.engine.safe_loading import allow_host_checkpoints, check_files_of_hosts  # noqa: E402
from knet_plugin.host_names import find_configs_of_forks  # noqa: E402
from knet_plugin.inference import optimize_for_inference  # noqa: E402
from knet_plugin.registry import expose_unprefixed_names  # noqa: E402
from knet_plugin.semantic.attach import attach  # noqa: E402

find_configs_of_forks()
allow_host_checkpoints()
check_files_of_hosts()
save_whole_checkpoints()
expose_unprefixed_names()

__all__ = ['__version__', 'attach', 'checkpoint', 'class_check', 'core', 'detection', 'fsdp', 'loading',
           'optimize_for_inference', 'semantic']
