"""K-Net as an mmdet detector, for instance and panoptic segmentation."""

from typing import Any

from mmdet.models.detectors import MaskFormer
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData

from knet_plugin.checkpoint.key_map import rename_official_keys
from knet_plugin.checkpoint.mismatch import log_mismatches
from knet_plugin.checkpoint.reading import CheckpointError
from knet_plugin.registry import MODELS

__all__ = ['KNet']


@MODELS.register_module()
class KNet(MaskFormer):
    """Backbone, FPN, kernels (``KernelIterHead``) and post-processing (``KNetFusionHead``).

    It adds the semantic map to mmdet's mask classification detector, and renames the weights of official checkpoints
    while they are loaded.

    Args:
        panoptic_head: Config of the ``KernelIterHead``, also for instance segmentation. It must set its classes.
        panoptic_fusion_head: Config of the ``KNetFusionHead``; by default it takes the head's classes.
        **kwargs: Other arguments of mmdet's ``MaskFormer``: ``backbone``, ``neck`` (four levels of strides 4 to 32),
            ``train_cfg`` (see ``KernelIterHead``), ``test_cfg`` (see ``KNetFusionHead``) and so on.
    """

    def __init__(self, panoptic_head: dict, panoptic_fusion_head: dict | None = None, **kwargs: Any) -> None:
        head = ConfigDict(panoptic_head)
        fusion = ConfigDict({'type': 'knet_plugin.KNetFusionHead', **(panoptic_fusion_head or {})})
        for name in ('num_things_classes', 'num_stuff_classes'):
            if name not in head:
                raise ValueError(f'panoptic_head must set {name}, got {sorted(head)}')
            if fusion.setdefault(name, head[name]) != head[name]:
                raise ValueError(f'panoptic_head has {name}={head[name]}, but panoptic_fusion_head has {name}='
                                 f'{fusion[name]}')
        super().__init__(panoptic_head=head, panoptic_fusion_head=fusion, **kwargs)

    def add_pred_to_datasample(self, data_samples: SampleList,
                               results_list: list[dict[str, InstanceData | PixelData]]) -> SampleList:
        """Add ``pred_panoptic_seg``, ``pred_instances`` and ``pred_sem_seg`` as far as the fusion head made them."""
        for sample, results in zip(data_samples, results_list, strict=True):
            if 'sem_results' in results:
                sample.pred_sem_seg = results.pop('sem_results')
        return super().add_pred_to_datasample(data_samples, results_list)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Rename official weights below ``prefix`` and log what does not fit, then load them as usual."""
        rename_official_keys(state_dict, self, prefix)
        if not prefix and not state_dict.keys() & self.state_dict().keys():
            raise CheckpointError(f'no weight has a name of the model: the names begin with {sorted(state_dict)[:3]}, '
                                  f'those of {type(self).__name__} with {sorted(self.state_dict())[:3]}. '
                                  'tools/convert_checkpoint.py unwraps other formats')
        log_mismatches(state_dict, self, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
