"""Whole instance segmentation models, against mmdet's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from cases.mode import BEFORE, OURS, Measured, Mode
from cases.models import build_model, read_config
from cases.post_processing import SIZES
from knet_plugin.inference.optimize import optimize_for_inference

__all__ = ['CONFIGS', 'MODE', 'build']

NOT_OPTIMISED = 'not optimised'
CONFIGS = {OURS: 'knet-s3_r50_fpn_1x_coco',
           'Mask R-CNN': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
           'SOLOv2': 'mmdet::solov2/solov2_r50_fpn_1x_coco.py',
           'CondInst': 'mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
           'Cascade Mask R-CNN': 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
           'QueryInst': 'mmdet::queryinst/queryinst_r50_fpn_1x_coco.py',
           'Mask2Former': 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'}


def build(config: str, optimised: bool, sizes: tuple[tuple[int, int], ...], device: torch.device) -> Measured:
    """Predict 100 instances in one image; ``optimised`` with ``optimize_for_inference``."""
    model: Any = build_model(read_config(config), 'mmdet', device).eval()
    place_proposals(model)
    padded, image, original = sizes
    meta = dict(img_shape=image, ori_shape=original, batch_input_shape=padded, pad_shape=padded,
                scale_factor=(image[1] / original[1], image[0] / original[0]))
    inputs = torch.randn(1, 3, *padded, device=device)

    @torch.no_grad()
    def predict() -> InstanceData:
        return model(inputs, [DetDataSample(metainfo=dict(meta))], mode='predict')[0].pred_instances

    with torch.no_grad():
        feats = model.extract_feat(inputs)
    model.extract_feat = lambda batch_inputs: feats  # computed once for the whole search
    return_100_instances(model, predict)
    del model.extract_feat
    if optimised:
        model = optimize_for_inference(model)
    return Measured(predict)


def place_proposals(model: nn.Module) -> None:
    """Give learned boxes (QueryInst) common sizes, and keep them there: random regression would move them out."""
    boxes = getattr(getattr(model, 'rpn_head', None), 'init_proposal_bboxes', None)
    if boxes is None:
        return
    centres, sizes = torch.rand(2, len(boxes.weight), 2)
    boxes.weight.data = torch.cat([0.2 + 0.6 * centres, 0.1 + 0.3 * sizes], dim=1).to(boxes.weight)
    for name, module in model.named_modules():
        if name.split('.')[-1] == 'fc_reg':
            nn.init.zeros_(module.weight)


def return_100_instances(model: nn.Module, predict: Callable[[], InstanceData]) -> None:
    """Lower the score threshold until the model returns 100 instances, and not much further.

    The configs' thresholds are made for trained weights; those of random weights score differently.

    Raises:
        RuntimeError: If there is no such threshold.
    """
    configs = [module.test_cfg for module in model.modules()
               if 'score_thr' in (getattr(module, 'test_cfg', None) or {})]
    scores = class_scores(model, predict) if configs else torch.zeros(0)
    candidates = 100  # scores above the threshold; non-maximum suppression drops some of them
    while candidates < len(scores):
        for cfg in configs:
            cfg.score_thr = float(scores[candidates])
            if 'filter_thr' in cfg:
                cfg.filter_thr = 0.
        if len(predict()) == 100:
            return
        candidates += candidates // 2
    if (found := len(predict())) != 100:  # also of models that have no threshold
        raise RuntimeError(f'{type(model).__name__} returns {found} instances instead of 100')


def class_scores(model: nn.Module, predict: Callable[[], InstanceData]) -> Tensor:
    """Spread the class scores of an untrained model, and return them all, highest first."""
    logits: list[Tensor] = []
    hooks = []
    for name, module in model.named_modules():
        if name.split('.')[-1] in ('fc_cls', 'conv_cls'):
            nn.init.normal_(module.weight, std=0.05)
            hooks.append(module.register_forward_hook(lambda module, inputs, output: logits.append(output)))
    predict()
    for hook in hooks:
        hook.remove()
    if logits[0].dim() == 2:  # regions: a softmax with a background, and the mean of all stages
        scores = torch.stack([stage.softmax(dim=1)[:, :-1] for stage in logits]).mean(dim=0).flatten()
    else:
        scores = torch.cat([level.sigmoid().flatten() for level in logits])
    return scores.sort(descending=True).values


SETTING = 'R-50, 800 x 1333 to 100 masks in 480 x 800'

MODE = Mode(
    settings={SETTING: {name: partial(build, config, False, SIZES) for name, config in CONFIGS.items()},
              f'{SETTING}, optimised': {OURS: partial(build, CONFIGS[OURS], True, SIZES),
                                        NOT_OPTIMISED: partial(build, CONFIGS[OURS], False, SIZES)}},
    turns=9,
    goals={**{name: dict(seconds=1.) for name in CONFIGS if name != OURS}, BEFORE: dict(seconds=1.05)})
