"""K-Net as an mmdet detector, for instance and for panoptic segmentation."""

from typing import Any

from mmdet.models.detectors import MaskFormer
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from knet_plugin.checkpoint.mismatch import log_mismatches
from knet_plugin.checkpoint.key_map import rename_official_keys
from knet_plugin.checkpoint.reading import CheckpointError
from knet_plugin.engine.finite_inputs import check_finite
from knet_plugin.registry import MODELS

__all__ = ['KNet']


@MODELS.register_module()
class KNet(MaskFormer):
    """Backbone, FPN, kernels (``KernelIterHead``) and read-outs (``KNetFusionHead``).

    It has the shape of mmdet's mask classification detectors, and takes over their handling of batches, losses and
    predictions; what it adds is the semantic map, so that one forward pass answers all three questions. Weights of the
    official release are renamed while they are loaded.

    Args:
        backbone: Config of the backbone.
        neck: Config of the FPN, with four levels of strides 4 to 32.
        panoptic_head: Config of the ``KernelIterHead``, also where there is no stuff. It must say its classes.
        panoptic_fusion_head: Config of the ``KNetFusionHead``; the default reads the head's classes.
        train_cfg: ``assigner``.
        test_cfg: What to read out, see ``KNetFusionHead``.
        data_preprocessor: Config of mmdet's ``DetDataPreprocessor``.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: If the head does not say its classes, or the fusion head says others.
    """

    def __init__(self,
                 backbone: dict,
                 neck: dict,
                 panoptic_head: dict,
                 panoptic_fusion_head: dict | None = None,
                 train_cfg: dict | None = None,
                 test_cfg: dict | None = None,
                 data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        head = ConfigDict(panoptic_head)
        fusion = ConfigDict({'type': 'knet_plugin.KNetFusionHead', **(panoptic_fusion_head or {})})
        for name in ('num_things_classes', 'num_stuff_classes'):
            if name not in head:
                raise ValueError(f'panoptic_head must say {name}, got {sorted(head)}')
            if fusion.setdefault(name, head[name]) != head[name]:
                raise ValueError(f'panoptic_head has {name}={head[name]}, but panoptic_fusion_head has {name}='
                                 f'{fusion[name]}')
        super().__init__(backbone=backbone, neck=neck, panoptic_head=head, panoptic_fusion_head=fusion,
                         train_cfg=train_cfg, test_cfg=test_cfg, data_preprocessor=data_preprocessor,
                         init_cfg=init_cfg)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of a batch, see ``KernelIterHead.loss``.

        Args:
            batch_inputs: Images, (B, 3, H, W).
            batch_data_samples: mmdet's, with the ground truth.

        Raises:
            ValueError: If images have NaN or infinite pixels, before anything is computed from them.
        """
        check_finite(batch_inputs, batch_data_samples)
        return super().loss(batch_inputs, batch_data_samples)

    def add_pred_to_datasample(self, data_samples: SampleList,
                               results_list: list[dict[str, InstanceData | PixelData]]) -> SampleList:
        """Write ``pred_panoptic_seg``, ``pred_instances`` and ``pred_sem_seg``, as far as read out.

        Args:
            data_samples: The batch.
            results_list: What the fusion head returned for it.

        Returns:
            The same samples.
        """
        for sample, results in zip(data_samples, results_list, strict=True):
            if 'sem_results' in results:
                sample.pred_sem_seg = results.pop('sem_results')
        return super().add_pred_to_datasample(data_samples, results_list)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Rename official weights below ``prefix``, then load as usual, as strictly as the caller wants.

        A caller that is not strict (mmengine's is not, by default) goes on without weights that do not fit; what that
        probably means is said.

        Raises:
            CheckpointError: If not one of the weights has a name of the model.
        """
        rename_official_keys(state_dict, self, prefix)
        if not prefix and not state_dict.keys() & self.state_dict().keys():
            raise CheckpointError(f'none of the weights has a name of the model: they begin with '
                                  f'{sorted(state_dict)[:3]}, those of {type(self).__name__} with '
                                  f'{sorted(self.state_dict())[:3]}. If they are wrapped in something unusual, '
                                  'tools/convert_checkpoint.py may know it')
        log_mismatches(state_dict, self, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
