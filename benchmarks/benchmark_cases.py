"""What the benchmark measures: every case is one contender in one setting, built in a process of its own."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plain_knet
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from knet_plugin.checkpoint import to_official
from knet_plugin.cli import resolve_config
from knet_plugin.detection import KernelHead, KNetFusionHead
from knet_plugin.detection.targets import segment_targets
from knet_plugin.migration import load_source
from knet_plugin.registry import MODELS
from knet_plugin.semantic.smoke_test import build_segmentor

__all__ = ['CASES', 'GOALS', 'LAYOUTS', 'PART', 'RATE', 'Case', 'Goal', 'Measured', 'Parts', 'cases']

OURS, PLAIN, MMSEG = 'knet_plugin', 'plain equations', "mmseg's head"
DETECTION, SEMANTIC = (100, 152), (64, 64)
"""Sizes of the features of an image of 800 x 1216 in a detector, and of 512 x 512 in a segmentor."""


class Measured(NamedTuple):
    """One contender, ready to run."""

    step: Callable[[], Any]
    """What is timed."""
    forward: Callable[[], Any] | None = None
    """The part of it whose result holds all that the backward pass needs; what it keeps alive is measured."""
    clocks: dict[str, float] | None = None
    """Seconds of parts of the step, which the step itself adds up, from nothing in every run."""
    parts: 'Parts | None' = None
    """Where the step is to be reported part by part."""


class Parts:
    """Time and memory of the parts of a step, one after the other, each of them closed by a call with its name."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, dict[str, float]] = {}
        """On a GPU: bytes that a part leaves behind, and the most that the step holds within it."""

    def start(self) -> None:
        """Begin a step."""
        self.seconds.clear()
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
            self._before = self._last = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        self._begin = time.perf_counter()

    def __call__(self, name: str) -> None:
        """End a part."""
        with torch.profiler.record_function(PART + name):  # so that what is allocated on a CPU can be assigned to it
            pass
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
            now = torch.cuda.memory_allocated()
            self.memory[name] = dict(kept=now - self._last, peak=torch.cuda.max_memory_allocated() - self._before)
            self._last = now
            torch.cuda.reset_peak_memory_stats()
        now_seconds = time.perf_counter()
        self.seconds[name] = now_seconds - self._begin
        self._begin = now_seconds


PART = 'part: '
"""What the names of parts begin with in a trace."""


class Case(NamedTuple):
    """One contender in one setting."""

    mode: str
    setting: str
    contender: str
    build: Callable[[torch.device], Measured]
    group: str = ''
    """All cases of a group take turns, in whatever setting; without one, all of the setting."""


class Goal(NamedTuple):
    """At most ``limit`` times as much ``quantity`` as another contender, or as in another setting."""

    mode: str
    setting: str
    quantity: str
    contender: str
    versus: str
    limit: float
    why: str = ''
    """What to say where it is missed."""
    other_setting: str = ''
    """Of ``versus``, where it is not the same."""


CASES: list[Case] = []
GOALS: list[Goal] = []


def _compare(mode: str, setting: str, builds: dict[str, Callable[[torch.device], Measured]],
             limits: dict[str, float], contender: str = OURS, why: str = '', group: str = '') -> None:
    """Register contenders, and for one of them the limits by quantity against each of the others."""
    CASES.extend(Case(mode, setting, name, build, group) for name, build in builds.items())
    GOALS.extend(Goal(mode, setting, quantity, contender, other, limit, why) for quantity, limit in limits.items()
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
                 dict(seconds=0.5, kept=0.4) if _backward else dict(seconds=0.5),
                 why='Eq. 3 and Eq. 1 on the map are the same for both; so are attention, FFN and gates on N x C')

# How the stages' time grows: always ours, all of them in turns.
for _number in (50, 100, 150, 200, 256):
    CASES.append(Case('scaling', f'N = {_number}, S = 3', OURS,
                      partial(_stages, OURS, _number, 256, DETECTION, False, 3, 1), 'scaling'))
for _num_stages in (1, 2, 3, 4, 5):
    CASES.append(Case('scaling', f'N = 100, S = {_num_stages}', OURS,
                      partial(_stages, OURS, 100, 256, DETECTION, False, _num_stages, 1), 'scaling'))


# Localisation FPN and kernel head.


def _kernel_head(contender: str, device: torch.device) -> Measured:
    torch.manual_seed(0)
    head = KernelHead(80, 53).to(device).eval()
    feats = [torch.randn(1, 256, 800 // stride, 1216 // stride, device=device).relu() for stride in (4, 8, 16, 32)]
    function = partial(plain_knet.kernel_head, head) if contender == PLAIN else head
    return Measured(torch.no_grad()(partial(function, feats)))


_compare('fpn', 'localisation FPN + kernel head, 800 x 1216',
         {name: partial(_kernel_head, name) for name in (OURS, PLAIN)}, dict(seconds=0.7),
         why='no product of the 3 x 3 convolutions of P2 and P3 can be spared')

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
_why = 'every mask competes for every pixel, so all of them are made; a trained model is nearer to `blobs`'
for _panoptic in (True, False):
    for _kind in ('blobs', 'noise'):
        _what = 'panoptic, 153 masks' if _panoptic else 'instances, 100 masks'
        _compare('readout', f'{_what} ({_kind})',
                 {name: partial(_readout, _kind, name, _panoptic) for name in (OURS, PLAIN, MASKFORMER)},
                 dict(seconds=0.25), why=_why if _kind == 'noise' else '')

# A training step.


def read_config(config: str) -> Config:
    """One of ours by its name, or one of the hosts as ``mmdet::NAME``."""
    return load_source(config) if '::' in config else Config.fromfile(resolve_config(config))


def build_detector(config: str, device: torch.device, with_cp: bool = False) -> nn.Module:
    """A model as its config says, with its own initialisation in place of downloaded weights; ``with_cp`` is set for
    backbone and head.
    """
    MMLogger.get_instance('benchmark', log_level='ERROR')  # what was initialised how
    cfg = read_config(config).model
    DefaultScope.get_instance('benchmark', scope_name='mmdet')
    cfg.backbone.init_cfg = None
    if with_cp:
        cfg.backbone.with_cp = cfg.panoptic_head.with_cp = True
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


def watch_solver(assigner: Any) -> dict[str, float]:
    """Add up the seconds that the package spends in scipy's solver (``solver``), and those that the assigner takes as a
    whole, costs included (``matching``), as the CPU sees them.

    Raises:
        RuntimeError: If no module of the package uses the solver under its own name.
    """
    clocks: dict[str, float] = {}

    def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                clocks[name] = clocks.get(name, 0.) + time.perf_counter() - begin
        return call

    users = [module for name, module in list(sys.modules.items())
             if name.split('.')[0] == 'knet_plugin' and hasattr(module, 'linear_sum_assignment')]
    if not users:
        raise RuntimeError('no module of knet_plugin has a linear_sum_assignment whose time could be taken')
    for module in users:
        module.linear_sum_assignment = timed(module.linear_sum_assignment, 'solver')  # type: ignore[attr-defined]
    assigner.assign_batch = timed(assigner.assign_batch, 'matching')
    return clocks


def _trainee(objects: int, size: tuple[int, int], panoptic: bool, with_cp: bool,
             device: torch.device) -> tuple[Any, list[DetDataSample], Tensor]:
    """A model in training mode, and its batch."""
    config = 'knet-s3_r50_fpn_1x_coco-panoptic' if panoptic else 'knet-s3_r50_fpn_1x_coco'
    model = build_detector(config, device, with_cp).train()
    return model, training_batch(objects, size, panoptic, device), torch.randn(2, 3, *size, device=device)


def _sum_of_losses(losses: dict[str, Any]) -> Tensor:
    return sum(value.sum() for name, value in losses.items() if 'loss' in name)  # type: ignore[return-value]


def _train_step(contender: str, objects: int, size: tuple[int, int], panoptic: bool,
                device: torch.device) -> Measured:
    model, samples, inputs = _trainee(objects, size, panoptic, contender == WITH_CP, device)
    head = model.panoptic_head
    clocks = watch_solver(head.assigner)

    def losses() -> dict[str, Tensor]:
        if contender != PLAIN:
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
        _sum_of_losses(losses()).backward()
        model.zero_grad()

    return Measured(step, losses, clocks)


WITH_CP = 'knet_plugin, with_cp of backbone and head'
for _panoptic in (False, True):
    _what = f'{"panoptic" if _panoptic else "instance"}, R-50, 2 images of 480 x 640'
    for _objects in (10, 60):
        _setting = f'{_what}, {_objects} objects each'
        for _name in (OURS, PLAIN, WITH_CP):
            CASES.append(Case('train', _setting, _name, partial(_train_step, _name, _objects, (480, 640), _panoptic),
                              _what))
        GOALS.append(Goal('train', _setting, 'peak', OURS, PLAIN, 0.6, 'most of it are backbone and FPN, which are the '
                          "host's: see the parts of a training step in `profile`"))
        GOALS.append(Goal('train', _setting, 'peak', WITH_CP, PLAIN, 0.6))
    GOALS.extend(Goal('train', f'{_what}, 60 objects each', 'outside', _name, _name, 1.1,
                      'masks and targets of six times as many objects: see the parts of a training step in `profile`',
                      other_setting=f'{_what}, 10 objects each') for _name in (OURS, WITH_CP))

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

    with torch.no_grad():
        feats = model.extract_feat(inputs)
    model.extract_feat = lambda batch_inputs: feats  # they stay the same while the threshold is sought
    # Where one contender has found the threshold of a model, the others with the same model begin.
    hint = Path(os.environ['BENCHMARK_HINTS'], config.replace('/', '_')) if 'BENCHMARK_HINTS' in os.environ else None
    candidates = _return_100(model, predict, int(hint.read_text()) if hint and hint.exists() else 100)
    if hint:
        hint.write_text(str(candidates))
    del model.extract_feat
    if optimised is not None:
        if optimised.get('compile'):
            optimised = dict(optimised, inputs=inputs)  # compiled for this size at once
        model = optimise(model, **optimised)
        if (found := len(predict())) < 98:  # rounding may move one or two across the threshold
            raise RuntimeError(f'{type(model).__name__}, optimised, returns {found} instances instead of 100')
    return Measured(predict)


def optimise(model: nn.Module, channels_last: bool = True, **options: Any) -> nn.Module:
    """``optimize_for_inference``, and the same for what it leaves alone: the heads of other models than K-Net.

    The convolutions of all heads lie in memory like those of backbone and neck. Operators of mmcv stay as they are.
    """
    from knet_plugin import optimize_for_inference

    optimised = optimize_for_inference(model, channels_last=channels_last, **options)
    if channels_last:
        operators = [module for module in optimised.modules()
                     if any(kind.__module__.startswith('mmcv.ops.') for kind in type(module).__mro__)]
        left_alone = {id(module) for operator in operators for module in operator.modules()}
        for module in optimised.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and id(module) not in left_alone:
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return optimised


def _place_proposals(model: nn.Module) -> None:
    """Learned boxes (QueryInst) of usual sizes that stay where they are: random regression leaves the image."""
    boxes = getattr(getattr(model, 'rpn_head', None), 'init_proposal_bboxes', None)
    if boxes is not None:
        centres, sizes = torch.rand(2, len(boxes.weight), 2)
        boxes.weight.data = torch.cat([0.2 + 0.6 * centres, 0.1 + 0.3 * sizes], dim=1).to(boxes.weight)
        for name, module in model.named_modules():
            if name.split('.')[-1] == 'fc_reg':
                nn.init.zeros_(module.weight)


def _return_100(model: nn.Module, predict: Callable[[], InstanceData], candidates: int = 100) -> int:
    """Lower the score threshold until 100 instances are returned, and hardly further: weights that were never trained
    score otherwise than those that the stock threshold is made for.

    Args:
        model: The model.
        predict: Runs it.
        candidates: So many scores are above the threshold that is tried first.

    Returns:
        So many are above the one that was found.
    """
    configs = [module.test_cfg for module in model.modules()
               if 'score_thr' in (getattr(module, 'test_cfg', None) or {})]
    if not configs:
        found = len(predict())
        if found != 100:
            raise RuntimeError(f'{type(model).__name__} returned {found} instances instead of 100')
        return candidates
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
    return candidates


SLOW_BFLOAT16 = 'a CPU without units for products of bfloat16 (AMX) converts more than it spares'
LAYOUTS = ('contiguous', 'channels-last')
"""Every optimised model is measured in both; of each the faster one counts."""
WHOLE = 'R-50, 800 x 1333 to 100 masks in 480 x 800'
for _peer, _config in {OURS: 'knet-s3_r50_fpn_1x_coco', **PEERS}.items():
    CASES.append(Case('model', f'{WHOLE} (plain)', _peer, partial(_model, _config, None)))
for _layout in LAYOUTS:
    for _peer, _config in {OURS: 'knet-s3_r50_fpn_1x_coco', **PEERS}.items():
        CASES.append(Case('model', f'{WHOLE} (optimised, {_layout})', _peer,
                          partial(_model, _config, dict(channels_last=_layout == 'channels-last')), 'optimised'))
for _kind in ('plain', 'optimised'):
    GOALS.extend(Goal('model', f'{WHOLE} ({_kind})', 'seconds', OURS, _peer, RATIOS.get(_peer, 1.),
                      'both spend most of it in the same backbone and FPN: see `profile`') for _peer in PEERS)
# Without peers, whose heads stay in float32 and are not compiled.
for _name, _options in ((OURS, None), ('knet_plugin, optimised', {}),
                        ('knet_plugin, optimised, bfloat16', dict(dtype=torch.bfloat16)),
                        ('knet_plugin, optimised, compiled', dict(compile=True)),
                        ('knet_plugin, optimised, bfloat16, compiled', dict(dtype=torch.bfloat16, compile=True))):
    CASES.append(Case('model', f'{WHOLE} (ours alone)', _name, partial(_model, 'knet-s3_r50_fpn_1x_coco', _options)))
    if _name != OURS:
        GOALS.append(Goal('model', f'{WHOLE} (ours alone)', 'seconds', _name, OURS, 1.,
                          SLOW_BFLOAT16 if 'bfloat16' in _name else ''))

SEGMENTOR = 'segmentor, FCN, R-50-D8, 512 x 512'
SEGMENTORS = {OURS: 'knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512',
              "mmseg's K-Net": 'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
              'FCN alone': 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'}


def _segmentor(config: str, optimised: dict[str, Any] | None, device: torch.device) -> Measured:
    torch.manual_seed(0)
    model: Any = build_segmentor(read_config(config), (512, 512)).to(device).eval()
    inputs = torch.randn(1, 3, 512, 512, device=device)
    if optimised is not None:
        from knet_plugin import optimize_for_inference

        model = optimize_for_inference(model, inputs=inputs, **optimised)
    samples = [SegDataSample(metainfo=dict(img_shape=(512, 512), ori_shape=(512, 512)))]
    predict = torch.no_grad()(lambda: model(inputs, samples, mode='predict'))
    predict()  # as the other models have run by now
    return Measured(predict)


for _name, _options in (('', None), (', optimised', {}), (', optimised, compiled', dict(compile=True)),
                        (', optimised, bfloat16', dict(dtype=torch.bfloat16))):
    for _peer, _config in SEGMENTORS.items():
        CASES.append(Case('model', SEGMENTOR, _peer + _name, partial(_segmentor, _config, _options)))
    GOALS.append(Goal('model', SEGMENTOR, 'seconds', OURS + _name, "mmseg's K-Net" + _name, 1.,
                      'both spend most of it in the same backbone and FCN head'))
    if _name:
        GOALS.append(Goal('model', SEGMENTOR, 'seconds', OURS + _name, OURS, 1.,
                          SLOW_BFLOAT16 if 'bfloat16' in _name else ''))


# Memory layouts.


def _layout_case(name: str, kind: str, device: torch.device) -> Measured:
    """The panoptic model, its head, or a training step, in one of the two layouts."""
    memory_format = torch.channels_last if name == 'channels-last' else torch.contiguous_format
    size = (480, 640) if kind == 'training step' else (800, 1216)
    model, samples, inputs = _trainee(10, size, True, False, device)
    model.to(memory_format=memory_format)
    inputs = inputs.contiguous(memory_format=memory_format)
    if kind == 'training step':
        def step() -> None:
            _sum_of_losses(model(inputs, samples, mode='loss')).backward()
            model.zero_grad()

        return Measured(step)
    model.eval()
    if kind == 'model':
        return Measured(torch.no_grad()(lambda: model(inputs[:1], [samples[0].new()], mode='predict')))
    feats = [torch.randn(1, 256, size[0] // stride, size[1] // stride, device=device).relu().contiguous(
        memory_format=memory_format) for stride in (4, 8, 16, 32)]
    return Measured(torch.no_grad()(lambda: model.panoptic_head.predict(feats, [])))


for _kind, _setting in (('model', 'whole panoptic model, R-50, 800 x 1216'), ('head', 'its head, 800 x 1216'),
                        ('training step', 'its training step, 2 images of 480 x 640, 10 objects each')):
    _compare('layout', _setting, {_layout: partial(_layout_case, _layout, _kind) for _layout in LAYOUTS},
             dict(seconds=1.), contender='channels-last',
             why='the head puts channels last by itself at its first convolutions, so both do nearly the same')


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


def _train_parts(with_cp: bool, device: torch.device) -> Measured:
    """A training step that is cut into parts, each with its own backward pass."""
    size = (480, 640)
    model, samples, inputs = _trainee(60, size, True, with_cp, device)
    head, parts = model.panoptic_head, Parts(device)

    def leaves(outputs: Any) -> list[Tensor]:
        return [each for each in tree_leaves(outputs) if isinstance(each, Tensor) and each.requires_grad]

    def cut(outputs: Any) -> Any:
        return tree_map(lambda each: each.detach().requires_grad_(each.requires_grad) if isinstance(each, Tensor)
                        else each, outputs)

    def go_back(outputs: Any, given: Any) -> None:
        pairs = [(output, leaf.grad) for output, leaf in zip(leaves(outputs), leaves(given), strict=True)
                 if leaf.grad is not None]
        torch.autograd.backward(*zip(*pairs, strict=True))

    def step() -> None:
        parts.start()
        pyramid = list(model.extract_feat(inputs))
        parts('backbone + FPN, forward')
        given = cut(pyramid)
        made = head.stages(given)
        parts('head, forward')
        targets = segment_targets(samples, (size[0] // 4, size[1] // 4), head.num_things_classes,
                                  head.num_stuff_classes)
        parts('targets')
        predicted = cut(made)
        losses = head.loss_by_feat(*predicted, targets, [sample.metainfo for sample in samples])
        parts('matching and losses, forward')
        _sum_of_losses(losses).backward()
        del losses, targets
        parts('losses, backward')
        go_back(made, predicted)
        del made, predicted
        parts('head, backward')
        go_back(pyramid, given)
        parts('backbone + FPN, backward')
        model.zero_grad()

    return Measured(step, parts=parts)


for _with_cp in (False, True):
    _name = ', with_cp of backbone and head' if _with_cp else ''
    CASES.append(Case('profile', f'a training step, R-50 panoptic, 2 images of 480 x 640, 60 objects each{_name}',
                      'parts of the step', partial(_train_parts, _with_cp), 'a training step'))


def cases(mode: str) -> Iterator[tuple[int, Case]]:
    """Cases of a mode with their positions."""
    return ((i, case) for i, case in enumerate(CASES) if case.mode == mode)
