"""K-Net in mmdet: instance, panoptic and semantic segmentation from one forward pass."""
# ruff: noqa: E402, the host is required first

from knet_plugin.compat import require

require('mmdet')

from knet_plugin.detection.centre_kernel_head import CentreKernelHead
from knet_plugin.detection.criterion import KNetCriterion
from knet_plugin.detection.efficientnet_lite import EfficientNetLite0
from knet_plugin.detection.fusion_head import KNetFusionHead
from knet_plugin.detection.kernel_head import KernelHead, KernelProposals
from knet_plugin.detection.kernel_iter_head import KernelIterHead
from knet_plugin.detection.knet import KNet
from knet_plugin.detection.localization_fpn import LocalizationFPN
from knet_plugin.detection.mask_pilots import MaskPilots
from knet_plugin.detection.matcher import DiceCost, MaskCost, MaskHungarianAssigner
from knet_plugin.detection.pixel_decoder import PixelDecoderAdapter

__all__ = ['CentreKernelHead', 'DiceCost', 'EfficientNetLite0', 'KNet', 'KNetCriterion', 'KNetFusionHead', 'KernelHead',
           'KernelIterHead', 'KernelProposals', 'LocalizationFPN', 'MaskCost', 'MaskHungarianAssigner',
           'MaskPilots', 'PixelDecoderAdapter']
