"""K-Net on every kind of decode head of mmseg, from the stock configs.

Images are small (64 x 64, or what a head needs at least), and what a head fixes to the size of its images follows; see
``benchmarks/decode_heads.py``. All else is stock.
"""

import copy
from importlib.util import find_spec
from itertools import islice
from tempfile import TemporaryDirectory

import pytest
import torch
from attach import build_segmentor, dummy_batch
from decode_heads import GENERATIONS
from mmengine.registry import DefaultScope
from mmengine.runner import get_state_dict, load_checkpoint, save_checkpoint
from torch.nn.functional import normalize

from knet_plugin import attach
from knet_plugin.checkpoint import to_official
from knet_plugin.migration import load_source
from knet_plugin.semantic import IterativeDecodeHead
from knet_plugin.semantic.attach import attached_text

ALGORITHMS = {algorithm.name: algorithm for generation in GENERATIONS.values() for algorithm in generation}
SIZES = {'LR-ASPP': (400, 400), 'Segmenter': (64, 96)}  # one that is no square, for the order of its patches
# How often a training step with three stages calls each of a head's loss functions.
CALLS = {'FCN': [4], 'DANet': [4 + 2], 'EncNet': [4], 'DDRNet': [4, 1], 'PIDNet': [1, 4, 1, 4]}
# Every adapter, both cascades, K-Net on K-Net, and one plain head of each generation; the others are slow tests.
FAST = {'FCN', 'DANet', 'EncNet', 'DDRNet', 'PIDNet', 'Segmenter', 'OCRNet', 'PointRend', 'K-Net on K-Net', 'CCNet',
        'SegFormer', 'DeepLabV3+'}


def cases():
    return [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in ALGORITHMS]


@pytest.mark.parametrize('name', ALGORITHMS)
def test_config_is_what_the_tool_writes(name):
    algorithm = ALGORITHMS[name]
    base = f'mmseg::{algorithm.stock}.py'
    stock = load_source(base)
    assert algorithm.attached.read_text().endswith(attached_text(base, stock, plugin='../../_base_/plugin.py'))
    read = load_source(str(algorithm.attached))
    assert without_scope(read.model.to_dict()) == without_scope(attach(stock).model.to_dict())


def without_scope(value):
    """A config without the scopes that mmengine notes at foreign bases."""
    if isinstance(value, dict):
        return {key: without_scope(item) for key, item in value.items() if key != '_scope_'}
    return [without_scope(item) for item in value] if isinstance(value, list | tuple) else value


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
        check_losses(model, head, algorithm.config(size), size)
        calls = check_training(model, head, size)
        check_classifier(model, head, arguments, size)
        check_saving(model, cfg, size)
    assert name not in CALLS or list(calls.values()) == CALLS[name]


@torch.no_grad()
def check_losses(model, head, stock_cfg, size):
    """Every loss of the plain model is there once, with its value; K-Net adds those of its stages, and nothing else."""
    plain = build_segmentor(stock_cfg, size)
    on_knet = type(plain.decode_head).__name__ == 'IterativeDecodeHead'  # mmseg's names losses of stages as ours does
    if on_knet:
        official = to_official(model.state_dict(), model)
        plain.load_state_dict({key: official[key] for key in plain.state_dict()})
    else:
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
    staged = {key.removesuffix('.s0') for key in start.values() if key.endswith('.s0')}
    assert any('loss' in key for key in staged)
    assert ours.keys() == {start[key] for key in theirs} | {f'{key}.s{i}' for key in staged
                                                            for i in range(1, head.num_stages + 1)}
    assert head.num_stages == (6 if on_knet else 3)


def check_training(model, head, size):
    """Losses are finite, and each stage's alone reaches the backbone, F, K_0 and the stages up to its own.

    Returns how often each loss function of the head was called.
    """
    batch = model.train().data_preprocessor(dummy_batch(model, size), True)
    seen, levels = [], []
    handles = [head.kernel_update_head[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs)),
               model.backbone.register_forward_hook(lambda module, inputs, outputs: levels.extend(tensors(outputs)))]
    functions = head.kernel_generate_head.loss_decode
    calls = dict.fromkeys(functions if isinstance(functions, torch.nn.ModuleList) else [functions], 0)
    handles += [function.register_forward_hook(lambda module, *_: calls.update({module: calls[module] + 1}))
                for function in calls]
    losses = model(**batch, mode='loss')
    for handle in handles:
        handle.remove()
    assert model.parse_losses(losses)[0].isfinite()
    features, kernels, start = seen[0]  # PointRend's second head runs the first again
    levels = [level for level in levels if level.requires_grad]
    stock = [parameter for parameter in head.kernel_generate_head.parameters() if parameter.requires_grad]
    assert reaches(features.square().sum(), levels) and reaches(kernels.square().sum(), stock)
    stages = [sum(value for key, value in losses.items() if 'loss' in key and key.endswith(f'.s{i}'))
              for i in range(head.num_stages + 1)]
    for i, loss in enumerate(stages):
        parts = [list(stage.parameters()) for stage in head.kernel_update_head[:i]]
        assert reaches(loss, levels, stock, [start], *parts, *([[features], [kernels]] if i else []))
    sum(stages).backward()
    for part in (model.backbone, head.kernel_generate_head, *head.kernel_update_head):
        gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients), type(part)
    for stage in head.kernel_update_head:
        assert all(parameter.grad is not None for parameter in stage.parameters())
    model.zero_grad(set_to_none=True)
    return calls


def tensors(outputs):
    """The tensors of nested tuples and lists."""
    return [outputs] if isinstance(outputs, torch.Tensor) else [tensor for part in outputs for tensor in tensors(part)]


def reaches(value, *groups):
    """Whether a value has a gradient for some tensor of each group."""
    found = iter(torch.autograd.grad(value, [tensor for group in groups for tensor in group], retain_graph=True,
                                     allow_unused=True))
    parts = [list(islice(found, len(group))) for group in groups]
    return all(any(gradient is not None and gradient.any() for gradient in part) for part in parts)


@torch.no_grad()
def check_classifier(model, head, arguments, size):
    """M_0 are the logits of the plain head, and F and K_0 are what it computes them from."""
    batch = model.eval().data_preprocessor(dummy_batch(model, size, 1), False)
    given = arguments(batch['inputs'])
    plain = copy.deepcopy(head).kernel_generate_head
    for method in {'cls_seg', 'forward', 'loss_by_feat'} & vars(plain).keys():
        delattr(plain, method)
    parts = {}
    for name in ('patch_proj', 'classes_proj') if hasattr(plain, 'classes_proj') else ():
        getattr(plain, name).register_forward_hook(
            lambda module, inputs, output, name=name: parts.setdefault(name, output))
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
    torch.manual_seed(0)
    assert torch.equal(first(head(*given)), logits[-1])  # as others read it, such as PointRend's second head
    if parts:
        check_segmenter(plain, parts, features, kernels, expected)
    else:
        product = torch.einsum('bnc,bchw->bnhw', kernels.flatten(2), features) + plain.conv_seg.bias[:, None, None]
        assert (product - expected).abs().max() <= 1e-4 * expected.abs().max()


def check_segmenter(plain, parts, features, kernels, expected):
    """F are the patches and K_0 the classes, in the order of the masks, which are a norm of their cosines."""
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), parts['patch_proj'])
    torch.testing.assert_close(kernels.flatten(2), parts['classes_proj'])
    cosines = torch.einsum('bnc,bchw->bhwn', normalize(kernels.flatten(2), dim=2), normalize(features, dim=1))
    torch.testing.assert_close(plain.mask_norm(cosines).permute(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def check_saving(model, cfg, size):
    """A fresh model with the weights of a file predicts the same."""
    fresh = build_segmentor(cfg, size)
    with TemporaryDirectory() as folder:  # not pytest's, which would keep gigabytes
        save_checkpoint(dict(state_dict=get_state_dict(model)), f'{folder}/weights.pth')
        load_checkpoint(fresh, f'{folder}/weights.pth', strict=True)
    results = []
    for each in (model, fresh):
        torch.manual_seed(0)
        results += each.eval().test_step(dummy_batch(model, size, 1))
    torch.testing.assert_close(results[1].seg_logits.data, results[0].seg_logits.data)
    assert results[0].pred_sem_seg.data.shape == (1, *size)
