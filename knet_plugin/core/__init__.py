"""The core of K-Net: task-neutral, and free of mmseg and mmdet."""

from knet_plugin.core.kernel_classifier import KernelClassifier
from knet_plugin.core.kernel_interaction import KernelInteraction
from knet_plugin.core.kernel_update_head import KernelUpdate, KernelUpdateHead
from knet_plugin.core.kernel_updater import KernelUpdater
from knet_plugin.core.mask_activation import HardMask, SigmoidMask, SoftmaxMask

__all__ = ['HardMask', 'KernelClassifier', 'KernelInteraction', 'KernelUpdate', 'KernelUpdateHead', 'KernelUpdater',
           'SigmoidMask', 'SoftmaxMask']
