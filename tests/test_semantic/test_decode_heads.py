"""K-Net on every kind of decode head of mmseg, from the stock configs.

Images are small (64 x 64, or what a head needs at least), and what a head fixes to the size of its images follows; see
``tools/decode_heads.py``. All else is stock.
"""

import copy
import runpy
from importlib.util import find_spec

import pytest
import torch
from mmengine.registry import DefaultScope

from knet_plugin import attach
from knet_plugin.cli import resolve_tool
from knet_plugin.migration import load_source
from knet_plugin.semantic import IterativeDecodeHead
from knet_plugin.semantic.attach import attached_text
from knet_plugin.semantic.trial import build_segmentor, dummy_batch

TOOL = runpy.run_path(str(resolve_tool('decode_heads')))
ALGORITHMS = {algorithm.name: algorithm for generation in TOOL['GENERATIONS'].values() for algorithm in generation}
SIZES = {'LR-ASPP': (400, 400)}
HEAVY = {'SETR naive', 'SETR PUP', 'SETR MLA', 'BEiT UPerNet', 'MAE UPerNet'}  # gigabytes of memory


def cases():
    return [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else []) for name in ALGORITHMS]


@pytest.mark.parametrize('name', ALGORITHMS)
def test_config_is_what_the_tool_writes(name):
    algorithm = ALGORITHMS[name]
    base = f'mmseg::{algorithm.stock}.py'
    assert algorithm.attached.read_text().endswith(
        attached_text(base, load_source(base), plugin='../../_base_/plugin.py'))


def perturb(model):
    """Move every weight, so that no residual or normalisation that starts as an identity can hide."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def knet_of(model):
    """The K-Net head and how to call it: the features, and in a cascade what came before."""
    heads = model.decode_head if isinstance(model.decode_head, torch.nn.ModuleList) else [model.decode_head]
    index = next(i for i, head in enumerate(heads) if isinstance(head, IterativeDecodeHead))

    def arguments(images):
        features = model.extract_feat(images)
        return (features, heads[index - 1](features)) if index else (features, )
    return heads[index], arguments


def first(output):
    return output[0] if isinstance(output, list | tuple) else output


@pytest.mark.parametrize('name', cases())
def test_algorithm(name):
    algorithm = ALGORITHMS[name]
    if algorithm.needs and not find_spec(algorithm.needs):
        pytest.skip(f'mmseg\'s {name} needs {algorithm.needs}')
    size = SIZES.get(name, (64, 64))
    cfg = attach(algorithm.config(size))
    torch.manual_seed(0)
    model = perturb(build_segmentor(cfg, size))
    head, arguments = knet_of(model)
    with DefaultScope.overwrite_default_scope('mmseg'):
        if name != 'K-Net on K-Net':  # mmseg's K-Net names its losses in its own way; see test_parity_with_mmseg
            check_losses(model, algorithm.config(size), size)
        check_training(model, head, size)
        check_classifier(model, head, arguments, size)
        check_saving(model, cfg, size)


@torch.no_grad()
def check_losses(model, stock_cfg, size):
    """Every loss of the plain model is there once, with its value; K-Net adds those of its stages, and nothing else."""
    plain = build_segmentor(stock_cfg, size)
    plain.load_state_dict({key.replace('.kernel_generate_head.', '.'): value for key, value in
                           model.state_dict().items() if '.kernel_update_head.' not in key})
    losses = []
    for each in (model, plain):
        each.train()
        for module in each.modules():
            if 'Drop' in type(module).__name__:
                module.eval()
        batch = each.data_preprocessor(dummy_batch(each, size), True)
        torch.manual_seed(0)
        losses.append(each(**batch, mode='loss'))
    ours, theirs = losses
    start = {key: f'{key}.s0' if f'{key}.s0' in ours else key for key in theirs}
    rendered = {key for key in theirs if 'point' in key}  # PointRend's second head sees K-Net's map, not the plain one
    for key in theirs.keys() - rendered:
        torch.testing.assert_close(ours[start[key]], theirs[key], rtol=1e-4, atol=1e-5)
    staged = {key for key, name in start.items() if name != key}
    assert any('loss' in key for key in staged)
    assert ours.keys() == {start[key] for key in theirs} | {f'{key}.s{i}' for key in staged for i in range(1, 10)
                                                            if f'{key}.s{i}' in ours}


def check_training(model, head, size):
    """Losses are finite and reach the backbone, the stock head and every stage."""
    batch = model.train().data_preprocessor(dummy_batch(model, size), True)
    losses, _ = model.parse_losses(model(**batch, mode='loss'))
    assert losses.isfinite()
    losses.backward()
    for part in (model.backbone, head.kernel_generate_head, *head.kernel_update_head):
        gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients), type(part)
    for stage in head.kernel_update_head:
        assert all(parameter.grad is not None for parameter in stage.parameters())
    model.zero_grad(set_to_none=True)


@torch.no_grad()
def check_classifier(model, head, arguments, size):
    """M_0 is what the plain head says, and, where that is linear, the product of kernels and features."""
    batch = model.eval().data_preprocessor(dummy_batch(model, size, 1), False)
    given = arguments(batch['inputs'])
    plain = copy.deepcopy(head).kernel_generate_head
    for method in {'cls_seg', 'forward', 'loss_by_feat'} & vars(plain).keys():
        delattr(plain, method)
    torch.manual_seed(0)  # SegNeXt's matrix decomposition starts from random bases
    expected = first(plain(*given))
    seen = []
    handle = head.kernel_update_head[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    torch.manual_seed(0)
    logits = head.stage_logits(*given)
    handle.remove()
    (features, kernels, start), = seen
    assert logits[0] is start and len(logits) == head.num_stages + 1
    assert (start - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert not torch.allclose(logits[0], logits[-1], rtol=1e-3)
    if hasattr(plain, 'conv_seg'):
        product = torch.einsum('bnc,bchw->bnhw', kernels.flatten(2), features) + plain.conv_seg.bias[:, None, None]
        assert (product - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.no_grad()
def check_saving(model, cfg, size):
    """A fresh model with the saved weights predicts the same."""
    fresh = build_segmentor(cfg, size)
    fresh.load_state_dict(model.state_dict())
    results = []
    for each in (model, fresh):
        torch.manual_seed(0)
        results += each.eval().test_step(dummy_batch(model, size, 1))
    torch.testing.assert_close(results[1].seg_logits.data, results[0].seg_logits.data)
    assert results[0].pred_sem_seg.data.shape == (1, *size)
