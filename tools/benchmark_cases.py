"""What the benchmark measures: every case is one contender in one setting, built in a process of its own."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import plain_knet
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from knet_plugin.checkpoint import to_official
from knet_plugin.cli import resolve_config
from knet_plugin.detection import KernelHead, KNetFusionHead
from knet_plugin.detection.targets import segment_targets
from knet_plugin.registry import MODELS

__all__ = ['CASES', 'GOALS', 'RATE', 'Case', 'Goal', 'Measured', 'cases']

OURS, PLAIN, MMSEG = 'knet_plugin', 'plain equations', "mmseg's head"
DETECTION, SEMANTIC = (100, 152), (64, 64)
"""Sizes of the features of an image of 800 x 1216 in a detector, and of 512 x 512 in a segmentor."""


class Measured(NamedTuple):
    """One contender, ready to run."""

    step: Callable[[], Any]
    """What is timed."""
    forward: Callable[[], Any] | None = None
    """The part of it whose result holds all that the backward pass needs; what it keeps alive is measured."""


class Case(NamedTuple):
    """One contender in one setting."""

    mode: str
    setting: str
    contender: str
    build: Callable[[torch.device], Measured]


class Goal(NamedTuple):
    """At most ``limit`` times as much ``quantity`` as another contender."""

    mode: str
    setting: str
    quantity: str
    contender: str
    versus: str
    limit: float


CASES: list[Case] = []
GOALS: list[Goal] = []


def _compare(mode: str, setting: str, builds: dict[str, Callable[[torch.device], Measured]],
             limits: dict[str, float], contender: str = OURS) -> None:
    """Register contenders, and for the first one the limits by quantity against each of the others."""
    CASES.extend(Case(mode, setting, name, build) for name, build in builds.items())
    GOALS.extend(Goal(mode, setting, quantity, contender, other, limit) for quantity, limit in limits.items()
                 for other in builds if other != contender)


# Update stages.


def _stages(contender: str, number: int, channels: int, size: tuple[int, int], backward: bool, num_stages: int,
            batch: int, device: torch.device) -> Measured:
    """Three update stages one after the other. Semantic ones weigh by a softmax, those of a detector have a hard mask
    (but for mmseg's, which knows the softmax alone); none classifies, as mmseg's cannot.
    """
    torch.manual_seed(0)
    semantic = channels == 512
    cfg = dict(type='knet_plugin.KernelUpdateHead', channels=channels,
               mask_activation=dict(type='knet_plugin.SoftmaxMask' if semantic else 'knet_plugin.HardMask'),
               updater=dict(type='knet_plugin.KernelUpdater', group_channels=256))
    stages: Any = nn.ModuleList([MODELS.build(cfg) for _ in range(num_stages)])
    if contender == MMSEG:
        stages = nn.ModuleList([_mmseg_stage(stage, number, channels) for stage in stages])
    stages.to(device)
    features = torch.randn(batch, channels, *size, device=device, requires_grad=backward)
    first = torch.randn(batch, number, channels, 1, 1, device=device, requires_grad=backward)
    logits = torch.randn(batch, number, *size, device=device, requires_grad=backward)

    def forward() -> list[Tensor]:
        kernels, masks, outputs = first, logits, []
        for stage in stages:
            if contender == PLAIN:
                kernels, masks, _ = plain_knet.update_stage(stage, features, kernels, masks)
            elif contender == MMSEG:
                masks, kernels = stage(features, kernels, masks)
            else:
                kernels, masks, _ = stage(features, kernels, masks)
            outputs.append(masks)
        return outputs

    def train() -> None:
        # The sum alone would not do: its gradient has no memory of its own, which some products take slowly.
        torch.autograd.backward(forward(), [torch.ones_like(logits)] * num_stages)
        stages.zero_grad()
        features.grad = first.grad = logits.grad = None

    return Measured(train, forward) if backward else Measured(torch.no_grad()(forward))


def _mmseg_stage(stage: nn.Module, number: int, channels: int) -> nn.Module:
    """mmseg's module with the weights of ours."""
    from mmseg.registry import MODELS as MMSEG_MODELS

    theirs = MMSEG_MODELS.build(dict(
        type='mmseg.KernelUpdateHead', num_classes=number, num_ffn_fcs=2, num_heads=8, num_mask_fcs=1,
        feedforward_channels=2048, in_channels=channels, out_channels=channels, dropout=0.0, conv_kernel_size=1,
        ffn_act_cfg=dict(type='ReLU', inplace=True), with_ffn=True,
        feat_transform_cfg=dict(conv_cfg=dict(type='Conv2d'), act_cfg=None),
        kernel_updator_cfg=dict(type='mmseg.KernelUpdator', in_channels=256, feat_channels=256, out_channels=256,
                                act_cfg=dict(type='ReLU', inplace=True), norm_cfg=dict(type='LN'))))
    theirs.load_state_dict(to_official(stage.state_dict(), stage))
    return theirs


for _name, _number, _channels, _size in (('N = 100, C = 256, 100 x 152', 100, 256, DETECTION),
                                         ('N = 153, C = 256, 100 x 152', 153, 256, DETECTION),
                                         ('N = 150, C = 512, 64 x 64', 150, 512, SEMANTIC)):
    for _backward in (False, True):
        _compare('head', f'3 stages, {_name}, ' + ('forward + backward, 2 images' if _backward else 'forward'),
                 {name: partial(_stages, name, _number, _channels, _size, _backward, 3, 1 + _backward)
                  for name in (OURS, MMSEG, PLAIN)},
                 dict(seconds=0.5, kept=0.4) if _backward else dict(seconds=0.5))

# How the stages' time grows: always ours.
for _number in (50, 100, 150, 200, 256):
    CASES.append(Case('scaling', f'N = {_number}, S = 3', OURS,
                      partial(_stages, OURS, _number, 256, DETECTION, False, 3, 1)))
for _num_stages in (1, 2, 3, 4, 5):
    CASES.append(Case('scaling', f'N = 100, S = {_num_stages}', OURS,
                      partial(_stages, OURS, 100, 256, DETECTION, False, _num_stages, 1)))


# Localisation FPN and kernel head.


def _kernel_head(contender: str, device: torch.device) -> Measured:
    torch.manual_seed(0)
    head = KernelHead(80, 53).to(device).eval()
    feats = [torch.randn(1, 256, 800 // stride, 1216 // stride, device=device).relu() for stride in (4, 8, 16, 32)]
    function = partial(plain_knet.kernel_head, head) if contender == PLAIN else head
    return Measured(torch.no_grad()(partial(function, feats)))


_compare('fpn', 'localisation FPN + kernel head, 800 x 1216',
         {name: partial(_kernel_head, name) for name in (OURS, PLAIN)}, dict(seconds=0.7))

# Read-outs.

SIZES = ((800, 1344), (800, 1333), (480, 800))
"""Padded input, image, and original image."""


def blobs(number: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Logits of soft ellipses, a few of them large: the shape of what a trained model yields, (number, h, w)."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:size[0], :size[1]]
    maps = []
    for _ in range(number):
        radius = size[0] * np.exp(generator.uniform(np.log(0.03), np.log(0.6)))
        y, x, stretch = generator.uniform(0, size[0]), generator.uniform(0, size[1]), generator.uniform(0.5, 2)
        distance = np.hypot((rows - y) * stretch, (columns - x) / stretch)
        maps.append((radius - distance) * generator.uniform(0.5, 1.5))
    return torch.from_numpy(np.clip(np.stack(maps), -12, 12)).float().to(device)


def _readout(kind: str, contender: str, panoptic: bool, device: torch.device) -> Measured:
    torch.manual_seed(0)
    number, stuff = (153, 53) if panoptic else (100, 0)
    size = (SIZES[0][0] // 4, SIZES[0][1] // 4)
    logits = blobs(number, size, device) if kind == 'blobs' else 4 * torch.randn(number, *size, device=device)
    class_logits = torch.randn(1, number, 80 + stuff, device=device) * 2 - 3
    meta = dict(img_shape=SIZES[1], ori_shape=SIZES[2], batch_input_shape=SIZES[0])
    samples = [DetDataSample(metainfo=meta)]
    fusion = KNetFusionHead(80, stuff, dict(panoptic_on=panoptic, instance_on=not panoptic))
    if contender == OURS:
        return Measured(lambda: fusion.predict(class_logits, logits[None], samples))
    scores = class_logits[0].sigmoid()
    if contender == PLAIN and panoptic:
        kernel_scores, labels = fusion._candidates(scores)
        return Measured(lambda: plain_knet.panoptic(kernel_scores, labels, plain_knet.full_masks(logits, *SIZES), 80,
                                                    80 + stuff))
    if contender == PLAIN:
        return Measured(lambda: plain_knet.instances(scores, logits, SIZES))
    # mmdet's takes logits at the padded size, which its Mask2FormerHead makes, and softmax scores with a background.
    cfg = dict(type='mmdet.MaskFormerFusionHead', num_things_classes=80, num_stuff_classes=stuff,
               test_cfg=dict(panoptic_on=panoptic, instance_on=not panoptic, object_mask_thr=0., iou_thr=0.6))
    theirs = MMDET_MODELS.build(cfg)
    background = torch.cat([class_logits * 3, class_logits.new_full((1, number, 1), -9.)], dim=2)

    def mmdets() -> Any:
        full = nn.functional.interpolate(logits[None], SIZES[0], mode='bilinear', align_corners=False)
        return theirs.predict(background, full, samples, rescale=True)

    return Measured(torch.no_grad()(mmdets))


MASKFORMER = 'MaskFormerFusionHead'
for _panoptic in (True, False):
    for _kind in ('blobs', 'noise'):
        _what = 'panoptic, 153 masks' if _panoptic else 'instances, 100 masks'
        _compare('readout', f'{_what} ({_kind})',
                 {name: partial(_readout, _kind, name, _panoptic) for name in (OURS, PLAIN, MASKFORMER)},
                 dict(seconds=0.25))

# A training step.


def build_detector(config: str, device: torch.device) -> nn.Module:
    """A model as its config says, with its own initialisation in place of downloaded weights."""
    MMLogger.get_instance('benchmark', log_level='ERROR')  # what was initialised how
    cfg = (get_config(config) if '::' in config else Config.fromfile(resolve_config(config))).model
    DefaultScope.get_instance('benchmark', scope_name='mmdet')
    cfg.backbone.init_cfg = None
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = revert_sync_batchnorm(MMDET_MODELS.build(cfg))
        model.init_weights()
    return model.to(device)


def training_batch(objects: int, size: tuple[int, int], panoptic: bool, device: torch.device) -> list[DetDataSample]:
    """Two images with so many rectangles each, on a background of some stuff."""
    generator = np.random.default_rng(0)
    height, width = size
    samples = []
    for _ in range(2):
        masks = np.zeros((objects, height, width), np.uint8)
        for mask in masks:
            h, w = generator.integers(20, height // 3, 2)
            y, x = generator.integers(0, height - h), generator.integers(0, width - w)
            mask[y:y + h, x:x + w] = 1
        sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, batch_input_shape=size, pad_shape=size))
        sample.gt_instances = InstanceData(
            masks=BitmapMasks(masks, height, width), labels=torch.arange(objects, device=device) % 80,
            bboxes=torch.zeros(objects, 4, device=device))
        if panoptic:
            semantic = np.repeat(np.arange(80, 80 + 10), -(-height // 10))[:height]
            sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(semantic).to(device).view(1, -1, 1).expand(
                1, height, width).clone())
        samples.append(sample)
    return samples


def _train_step(contender: str, objects: int, size: tuple[int, int], panoptic: bool,
                device: torch.device) -> Measured:
    config = 'knet-s3_r50_fpn_1x_coco-panoptic' if panoptic else 'knet-s3_r50_fpn_1x_coco'
    model = build_detector(config, device).train()
    samples = training_batch(objects, size, panoptic, device)
    inputs = torch.randn(2, 3, *size, device=device)
    head: Any = model.panoptic_head

    def losses() -> dict[str, Tensor]:
        if contender == OURS:
            return model(inputs, samples, mode='loss')
        feats = model.extract_feat(inputs)
        proposals, updates = plain_knet.kernel_head(head.kernel_head, feats), []
        features, kernels, masks, _ = proposals
        for stage in head.kernel_update_head:
            updates.append(plain_knet.update_stage(stage, features, kernels, masks))
            kernels, masks, _ = updates[-1]
        targets = segment_targets(samples, (size[0] // 4, size[1] // 4), head.num_things_classes,
                                  head.num_stuff_classes)
        return plain_knet.dense_losses(head, proposals, updates, targets, [sample.metainfo for sample in samples])

    def step() -> None:
        sum(value.sum() for name, value in losses().items() if 'loss' in name).backward()  # type: ignore[union-attr]
        model.zero_grad()

    return Measured(step, losses)


for _panoptic in (False, True):
    for _objects in (10, 60):
        _what = 'panoptic' if _panoptic else 'instance'
        _compare('train', f'{_what}, R-50, 2 images of 480 x 640, {_objects} objects each',
                 {name: partial(_train_step, name, _objects, (480, 640), _panoptic) for name in (OURS, PLAIN)},
                 dict(peak=0.6))

# Whole models.

PEERS = {'Mask R-CNN': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
         'SOLOv2': 'mmdet::solov2/solov2_r50_fpn_1x_coco.py',
         'CondInst': 'mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
         'Cascade Mask R-CNN': 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
         'QueryInst': 'mmdet::queryinst/queryinst_r50_fpn_1x_coco.py',
         'Mask2Former': 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'}
RATIOS = {'Mask R-CNN': 1 / 1.21, 'SOLOv2': 1 / 1.20, 'CondInst': 1 / 1.51, 'Cascade Mask R-CNN': 1 / 2.06}
"""What the paper's own speeds amount to (Table 2); the others are only to be slower."""


def _model(config: str, optimised: dict[str, Any] | None, device: torch.device) -> Measured:
    model = build_detector(config, device).eval()
    _place_proposals(model)
    padded, image, original = SIZES
    meta = dict(img_shape=image, ori_shape=original, batch_input_shape=padded, pad_shape=padded,
                scale_factor=(image[1] / original[1], image[0] / original[0]))
    inputs = torch.randn(1, 3, *padded, device=device)

    @torch.no_grad()
    def predict() -> InstanceData:
        return model(inputs, [DetDataSample(metainfo=dict(meta))], mode='predict')[0].pred_instances

    _return_100(model, predict)
    if optimised is not None:
        from knet_plugin import optimize_for_inference
        model = optimize_for_inference(model, **optimised)
    return Measured(predict)


def _place_proposals(model: nn.Module) -> None:
    """Learned boxes (QueryInst) of usual sizes that stay where they are: random regression leaves the image."""
    boxes = getattr(getattr(model, 'rpn_head', None), 'init_proposal_bboxes', None)
    if boxes is not None:
        centres, sizes = torch.rand(2, len(boxes.weight), 2)
        boxes.weight.data = torch.cat([0.2 + 0.6 * centres, 0.1 + 0.3 * sizes], dim=1).to(boxes.weight)
        for name, module in model.named_modules():
            if name.split('.')[-1] == 'fc_reg':
                nn.init.zeros_(module.weight)


def _return_100(model: nn.Module, predict: Callable[[], InstanceData]) -> None:
    """Lower the score threshold until 100 instances are returned, and hardly further: weights that were never trained
    score otherwise than those that the stock threshold is made for.
    """
    configs = [module.test_cfg for module in model.modules()
               if 'score_thr' in (getattr(module, 'test_cfg', None) or {})]
    if not configs:
        found = len(predict())
        if found != 100:
            raise RuntimeError(f'{type(model).__name__} returned {found} instances instead of 100')
        return
    logits: list[Tensor] = []
    hooks = []
    for name, module in model.named_modules():
        if name.split('.')[-1] in ('fc_cls', 'conv_cls'):
            nn.init.normal_(module.weight, std=0.05)  # so that scores differ
            hooks.append(module.register_forward_hook(lambda module, inputs, output: logits.append(output)))
    predict()
    if logits[0].dim() == 2:  # regions: softmax with a background, the mean of all stages
        scores = torch.stack([stage.softmax(dim=1)[:, :-1] for stage in logits]).mean(dim=0).flatten()
    else:
        scores = torch.cat([level.sigmoid().flatten() for level in logits])
    scores = scores.sort(descending=True).values
    candidates = 100
    while True:
        for cfg in configs:
            cfg.score_thr = float(scores[min(candidates, len(scores) - 1)])
            if 'filter_thr' in cfg:
                cfg.filter_thr = 0.
        if len(predict()) == 100:
            break
        if candidates >= len(scores):
            raise RuntimeError(f'{type(model).__name__} returns fewer than 100 instances at any threshold')
        candidates += candidates // 2
    for hook in hooks:
        hook.remove()


for _kind, _options in (('plain', None), ('optimised', {}), ('optimised, bfloat16', dict(dtype=torch.bfloat16))):
    _setting = f'R-50, 800 x 1333 to 100 masks in 480 x 800 ({_kind})'
    CASES.append(Case('model', _setting, OURS, partial(_model, 'knet-s3_r50_fpn_1x_coco', _options)))
    for _peer, _config in PEERS.items() if _kind != 'optimised, bfloat16' else ():  # whose heads stay in float32
        CASES.append(Case('model', _setting, _peer, partial(_model, _config, _options)))
        GOALS.append(Goal('model', _setting, 'seconds', OURS, _peer, RATIOS.get(_peer, 1.)))


# Where the time of one image goes.


def _part(name: str, device: torch.device) -> Measured:
    torch.manual_seed(0)
    if name == RATE:
        left, right = torch.randn(2, 2048, 2048, device=device)
        return Measured(lambda: left @ right)
    model: Any = build_detector('knet-s3_r50_fpn_1x_coco-panoptic', device).eval()
    model.panoptic_fusion_head.test_cfg.update(semantic_on=False, instance_on=False)
    meta = dict(img_shape=(800, 1216), ori_shape=(480, 730), batch_input_shape=(800, 1216))
    samples = [DetDataSample(metainfo=meta)]
    head = model.panoptic_head
    with torch.no_grad():
        inputs = torch.randn(1, 3, 800, 1216, device=device)
        levels = model.backbone(inputs)
        feats = model.neck(levels)
        proposals = head.kernel_head(feats)
    logits = blobs(153, (200, 304), device)[None]
    class_logits = torch.randn(1, 153, 133, device=device) * 2 - 3

    def stages() -> None:
        kernels, masks = proposals.kernels, proposals.mask_logits
        for stage in head.kernel_update_head:
            kernels, masks, _ = stage(proposals.features, kernels, masks)

    steps = {'backbone': lambda: model.backbone(inputs), 'FPN': lambda: model.neck(levels),
             'localisation FPN + kernel head': lambda: head.kernel_head(feats), '3 update stages': stages,
             'x2 upsampling of the masks': lambda: head._upsample(logits[..., ::2, ::2]),
             'panoptic read-out (blobs)': lambda: model.panoptic_fusion_head.predict(class_logits, logits, samples)}
    return Measured(torch.no_grad()(steps[name]))


RATE = 'a product of two 2048 x 2048 matrices'
for _name in ('backbone', 'FPN', 'localisation FPN + kernel head', '3 update stages', 'x2 upsampling of the masks',
              'panoptic read-out (blobs)', RATE):
    CASES.append(Case('profile', 'R-50 panoptic, 800 x 1216', _name, partial(_part, _name)))


def cases(mode: str) -> Iterator[tuple[int, Case]]:
    """Cases of a mode with their positions."""
    return ((i, case) for i, case in enumerate(CASES) if case.mode == mode)
