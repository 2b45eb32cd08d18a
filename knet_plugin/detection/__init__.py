"""K-Net in mmdet: instance and panoptic segmentation, and the semantic map from the same pass."""

# ruff: noqa: E402
from knet_plugin.compat import require

require('mmdet')

from knet_plugin.detection.fusion_head import KNetFusionHead
from knet_plugin.detection.kernel_head import KernelHead, KernelProposals
from knet_plugin.detection.kernel_iter_head import KernelIterHead
from knet_plugin.detection.criterion import KNetCriterion
from knet_plugin.detection.knet import KNet
from knet_plugin.detection.localization_fpn import LocalizationFPN
from knet_plugin.detection.matcher import MaskHungarianAssigner
from knet_plugin.detection.match_cost import DiceCost, MaskCost

__all__ = ['DiceCost', 'KNet', 'KNetFusionHead', 'KernelHead', 'KernelIterHead', 'KNetCriterion',
           'KernelProposals', 'LocalizationFPN',
           'MaskCost', 'MaskHungarianAssigner']
