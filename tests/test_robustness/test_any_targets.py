"""Losses of the detection head for any ground truth and any logits."""

from typing import Any

import torch
from detection_cases import sample
from hypothesis import given
from hypothesis import strategies as st
from mmdet.structures import SampleList
from robustness_inputs import LABEL_MAPS, LOGITS, MASKS, SEEDS, examples, make_label_map, make_logits, make_masks

from knet_plugin.core import KernelUpdate
from knet_plugin.detection import KernelIterHead
from knet_plugin.detection.kernel_head import KernelProposals
from knet_plugin.registry import MODELS

SMALL = dict(
    channels=8, norm_cfg=dict(type='GN', num_groups=1), localization_fpn=dict(feat_channels=8, in_channels=8))


@st.composite
def batches(draw: Any) -> dict:
    """Numbers and kinds of everything in a batch."""
    cells = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    any_size = st.tuples(st.integers(1, 70), st.integers(1, 70))
    padded = draw(st.one_of(st.just((8 * cells[0], 8 * cells[1])), any_size))
    images = [dict(size=(draw(st.integers(1, padded[0])), draw(st.integers(1, padded[1]))),
                   masks=draw(st.lists(st.sampled_from(MASKS), max_size=7)) * draw(st.sampled_from([1, 1, 1, 40])),
                   label_map=draw(st.sampled_from(LABEL_MAPS))) for _ in range(draw(st.integers(1, 4)))]
    return dict(
        images=images, cells=cells, padded=padded, kernels=draw(st.sampled_from([1, 2, 5, 100])),
        things=draw(st.integers(1, 3)), stuff=draw(st.integers(0, 2)),
        masks=draw(st.sampled_from(LOGITS)), classes=draw(st.sampled_from(LOGITS)), stages=draw(st.integers(1, 3)),
        ignore_void=draw(st.booleans()), rank=draw(st.booleans()), seed=draw(SEEDS))


def make_samples(batch: dict, generator: torch.Generator) -> SampleList:
    samples = []
    for i, image in enumerate(batch['images']):
        masks = make_masks(image['masks'], *image['size'], generator)
        labels = torch.randint(batch['things'], (len(masks), ), generator=generator)
        semantic = make_label_map(image['label_map'], batch['things'] + batch['stuff'], *image['size'], generator)
        samples.append(sample(masks, labels, batch['padded'], semantic, img_path=f'{i}.jpg'))
    return samples


def head_of(batch: dict) -> KernelIterHead:
    rank = dict(type='mmdet.CrossEntropyLoss', loss_weight=0.1) if batch['rank'] else None
    return MODELS.build(dict(
        type='knet_plugin.KernelIterHead', num_things_classes=batch['things'], num_stuff_classes=batch['stuff'],
        num_stages=batch['stages'],
        kernel_head=dict(SMALL, num_kernels=batch['kernels']),
        kernel_update_head=dict(interaction=dict(feedforward_channels=8)),
        criterion=dict(loss_rank=rank, ignore_void=batch['ignore_void'])))


@examples(40)
@given(batches())
def test_losses_are_finite(batch):
    generator = torch.Generator().manual_seed(batch['seed'])
    head, samples = head_of(batch), make_samples(batch, generator)
    kernels = batch['kernels'] + batch['stuff']
    classes = batch['things'] + batch['stuff']
    leaves = []

    def logits(kind: str, *shape: int) -> torch.Tensor:
        leaves.append(make_logits(kind, (len(samples), *shape), generator).requires_grad_())
        return leaves[-1]

    features = torch.zeros(len(samples), 8, *batch['cells'])
    proposals = KernelProposals(features, None, logits(batch['masks'], kernels, *batch['cells']),
                                logits(batch['masks'], classes, *batch['cells']))
    updates = [KernelUpdate(None, logits(batch['masks'], kernels, *batch['cells']),
                            logits(batch['classes'], kernels, classes)) for _ in range(batch['stages'])]
    head.propose, head.refine = lambda feats: proposals, lambda proposals: updates
    losses = head.loss((), samples)

    masks = ['loss_mask', 'loss_dice', *['loss_rank'] * batch['rank']]
    assert set(losses) == {f's0.{name}' for name in (*masks, 'loss_seg')} | {
        f's{i}.{name}' for i in range(1, batch['stages'] + 1) for name in (*masks, 'loss_cls', 'pos_acc')}
    for name, value in losses.items():
        assert value.numel() == 1 and value.isfinite().all(), (name, value)
        assert value >= 0, (name, value)
        assert value <= 100 or 'acc' not in name, (name, value)
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    for leaf in leaves:
        assert leaf.grad is not None and leaf.grad.isfinite().all()
