"""The heads under torch.compile, automatic mixed precision, and in channels-last memory."""

import pytest
import torch
from detection_cases import sample
from mmengine.registry import DefaultScope
from torch import _dynamo as dynamo

from knet_plugin.compat import release
from knet_plugin.core import KernelUpdateHead
from knet_plugin.detection import KernelIterHead
from knet_plugin.registry import MODELS

THINGS, STUFF = 3, 2


def stage(**options):
    return KernelUpdateHead(32, interaction=dict(type='knet_plugin.KernelInteraction', feedforward_channels=64),
                            **options), (torch.randn(2, 32, 9, 14), torch.randn(2, 7, 32, 1, 1),
                                         torch.randn(2, 7, 9, 14))


def detection_head():
    head = KernelIterHead(THINGS, STUFF, 2, dict(num_kernels=4, channels=32, norm_cfg=dict(type='GN', num_groups=4)),
                          dict(interaction=dict(feedforward_channels=64)),
                          dict(loss_rank=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=0.1)))
    return head, ([torch.randn(2, 32, 16 // 2**i, 24 // 2**i) for i in range(4)], )


def semantic_head():
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = MODELS.build(dict(
            type='knet_plugin.IterativeDecodeHead', num_stages=2,
            kernel_update_head=dict(interaction=dict(feedforward_channels=64)),
            kernel_generate_head=dict(type='FCNHead', in_channels=16, channels=32, num_classes=5, num_convs=1,
                                      dropout_ratio=0, loss_decode=dict(type='CrossEntropyLoss'))))
    return head.eval(), ([torch.randn(2, 16, 9, 14)] * 4, )


CASES = dict(stage=stage, hard=lambda: stage(mask_activation=dict(type='knet_plugin.HardMask')),
             detection=detection_head, semantic=semantic_head)


def tensors(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [one for output in outputs if output is not None for one in tensors(output)]


@pytest.mark.skipif(release(torch.__version__) < (2, 6), reason='torch breaks its graphs at decorators of the hosts')
@pytest.mark.parametrize('grad', [False, True])
@pytest.mark.parametrize('name', CASES)
def test_compiles_to_one_graph(name, grad):
    torch.manual_seed(0)
    head, inputs = CASES[name]()
    dynamo.reset()
    with torch.set_grad_enabled(grad):
        explained = dynamo.explain(head)(*inputs)
        assert explained.graph_break_count == 0 and explained.graph_count == 1, explained.break_reasons
        dynamo.reset()
        compiled = torch.compile(head, backend='aot_eager', fullgraph=True)(*inputs)
        for left, right in zip(tensors(compiled), tensors(head(*inputs)), strict=True):
            assert torch.allclose(left, right, rtol=1e-4, atol=1e-5)
    dynamo.reset()


@pytest.mark.parametrize('name', CASES)
def test_channels_last_changes_nothing(name):
    torch.manual_seed(0)
    head, inputs = CASES[name]()
    plain = tensors(head(*inputs))
    head = head.to(memory_format=torch.channels_last)
    inputs = [[one.contiguous(memory_format=torch.channels_last) for one in value] if isinstance(value, list) else
              value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value for value in inputs]
    for left, right in zip(tensors(head(*inputs)), plain, strict=True):
        assert torch.allclose(left, right, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_losses_under_autocast(dtype):
    """Close to those in float32, of that type themselves, and with finite gradients."""
    torch.manual_seed(0)
    head, (feats, ) = detection_head()
    head.init_weights()
    samples = []
    for count in (2, 0):
        masks = torch.zeros(count, 64, 96).long()
        for i in range(count):
            masks[i, 10:40, 30 * i:30 * i + 25] = 1
        samples.append(sample(masks, torch.arange(count), (64, 96), torch.randint(THINGS, THINGS + STUFF, (64, 96))))
    plain = head.loss(feats, samples)
    with torch.autocast('cpu', dtype=dtype):
        losses = head.loss(feats, samples)
    assert losses.keys() == plain.keys()
    for name, value in losses.items():
        assert value.dtype == torch.float32, name
        assert 'acc' in name or float(value) == pytest.approx(float(plain[name]), rel=0.05, abs=0.02), name
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all(weight.grad.isfinite().all() for weight in head.parameters() if weight.grad is not None)
