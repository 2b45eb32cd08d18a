"""The core of K-Net (Eq. 1-6), the same for all tasks; imports neither mmseg nor mmdet."""

from knet_plugin.core.kernel_classifier import KernelClassifier
from knet_plugin.core.kernel_interaction import KernelInteraction
from knet_plugin.core.kernel_update_head import KernelUpdate, KernelUpdateHead
from knet_plugin.core.kernel_updater import KernelUpdater
from knet_plugin.core.mask_activation import HardMask, SigmoidMask, SoftmaxMask

__all__ = ['HardMask', 'KernelClassifier', 'KernelInteraction', 'KernelUpdate', 'KernelUpdateHead', 'KernelUpdater',
           'SigmoidMask', 'SoftmaxMask']
