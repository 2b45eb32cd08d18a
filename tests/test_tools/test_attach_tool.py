import copy
import re
import runpy
import sys

import pytest
import torch
from attach import build_segmentor, dummy_batch, input_size, measure, train_step
from mmengine.config import Config

from knet_plugin import attach
from knet_plugin.cli import resolve_tool
from knet_plugin.migration import load_source

FCN = 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'
FAST = 'mmseg::fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py'
CFG = load_source(FAST)
SIZE = (64, 96)


def test_attention_is_counted():
    """The cost of the interaction is known: projections, products of attention, and the two layers after them."""
    costs = [measure(build_segmentor(attach(CFG, 3, update), SIZE), SIZE) for update in (
        None, dict(interaction=None))]
    kernels, channels, hidden = 19, 128, 2048
    stage = 4 * kernels * channels**2 + 2 * kernels**2 * channels + 2 * kernels * channels * hidden
    assert costs[0].flops - costs[1].flops == 3 * stage


def test_a_step_leaves_the_weights():
    model = build_segmentor(CFG, SIZE)
    before = {key: value.clone() for key, value in model.named_parameters()}
    assert train_step(model, SIZE)['loss'] > 0
    assert all(torch.equal(value, before[key]) for key, value in model.named_parameters())


def test_losses_that_are_not_finite():
    model = build_segmentor(CFG, SIZE)
    torch.nn.init.constant_(model.decode_head.conv_seg.bias, float('nan'))
    with pytest.raises(FloatingPointError, match='decode.loss_ce'):
        train_step(model, SIZE)


@pytest.mark.parametrize('cfg, size', [
    (dict(model=dict(data_preprocessor=dict(size=(4, 8)))), (4, 8)), (dict(model=dict(), crop_size=(5, 6)), (5, 6)),
    (dict(model=dict(data_preprocessor=dict(size=7))), (7, 7)), (dict(model=dict()), (512, 512))])
def test_input_size(cfg, size):
    assert input_size(Config(cfg)) == size


def test_grey_images_and_a_preprocessor_beside_the_model():
    cfg = copy.deepcopy(CFG)
    cfg.data_preprocessor = dict(cfg.model.pop('data_preprocessor'), mean=[128.], std=[50.], bgr_to_rgb=False)
    cfg.model.backbone.in_channels = 1
    model = build_segmentor(cfg, SIZE)
    assert [tuple(image.shape) for image in dummy_batch(model, SIZE)['inputs']] == [(1, *SIZE)] * 2
    assert train_step(model, SIZE)['loss'] > 0


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['attach', *map(str, arguments)])
    runpy.run_path(str(resolve_tool('attach')), run_name='__main__')


def numbers(printed, name):
    """Parameters (M), GFLOPs, seconds and loss of a line of the report."""
    line = next(line for line in printed.splitlines() if line.strip().startswith(name))
    return [float(number) for number in re.findall(r'\d+\.\d+', line)]


def test_tool(tmp_path, monkeypatch, capsys):
    base = tmp_path / 'configs/mine.py'
    base.parent.mkdir()
    base.write_text(f"_base_ = '{FAST}'")
    out = tmp_path / 'attached/mine.py'
    run(monkeypatch, base, '-o', out, '--stages', 2, '--size', 64, 96)
    printed = capsys.readouterr().err
    assert "_base_ = '../configs/mine.py'" in out.read_text()
    assert Config.fromfile(out).model.decode_head.num_stages == 2
    for name, cfg in (('without', CFG), ('with K-Net', attach(CFG, 2))):
        cost = measure(build_segmentor(cfg, SIZE), SIZE)
        parameters, flops, *_ = numbers(printed, name)
        assert (parameters, flops) == (round(cost.parameters / 1e6, 2), round(cost.flops / 1e9, 2))
    with pytest.raises(SystemExit, match='exists already'):
        run(monkeypatch, base, '-o', out)


def test_tool_prints_without_out(monkeypatch, capsys):
    run(monkeypatch, FCN.removesuffix('.py'), '--no-smoke-test', '--lr-mult', 0.5)
    printed = capsys.readouterr().out
    assert f"_base_ = '{FCN}'" in printed and "{'kernel_update_head': {'lr_mult': 0.5}}" in printed


@pytest.mark.parametrize('arguments, message', [
    ((FCN, '--stages', 0), '--stages.*got 0'), ((FCN, '--lr-mult', 0), 'lr_mult=0'),
    ((FCN, '-o', 'new.yaml'), 'new.yaml'),
    (('nowhere.py', ), 'nowhere.py'), (('mmseg::fcn/nothing', ), 'mmseg::fcn/nothing'),
    (('mmseg::san/san-vit-b16_coco-stuff164k-640x640', ), 'SideAdapterCLIPHead: ')])
def test_tool_on_bad_arguments(monkeypatch, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, *arguments, '--no-smoke-test')


def test_tool_names_the_model_that_does_not_run(tmp_path, monkeypatch):
    """And leaves no file, so that the same command can be repeated."""
    (tmp_path / 'wrong.py').write_text(f"_base_ = '{FAST}'\nmodel = dict(decode_head=dict(in_channels=3))")
    with pytest.raises(SystemExit, match='without K-Net.*RuntimeError'):
        run(monkeypatch, tmp_path / 'wrong.py', '-o', tmp_path / 'new.py', '--size', 64, 64)
    assert not (tmp_path / 'new.py').exists()


def test_tool_on_a_config_of_the_new_style(tmp_path, monkeypatch):
    """Such a config cannot be inherited from by _base_, but attach takes it."""
    (tmp_path / 'base.py').write_text(f'model = {CFG.model.to_dict()}')
    (tmp_path / 'new.py').write_text(
        'from mmengine.config import read_base\n\nwith read_base():\n    from .base import *\n')
    with pytest.raises(SystemExit, match=r'new.py.*knet_plugin.attach'):
        run(monkeypatch, tmp_path / 'new.py', '--no-smoke-test')
    attach(Config.fromfile(tmp_path / 'new.py')).dump(tmp_path / 'attached.py')
    assert Config.fromfile(tmp_path / 'attached.py').model.decode_head.type == 'knet_plugin.IterativeDecodeHead'


def test_tool_on_a_head_of_ones_own(tmp_path, monkeypatch, capsys):
    """Its module is imported, so that the head and its adapter are registered."""
    (tmp_path / 'my_own_head.py').write_text("""
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from knet_plugin.semantic import ADAPTERS, Adapter


@MODELS.register_module()
class MyOwnHead(FCNHead):
    def forward(self, inputs):
        feats = self._forward_feature(inputs)
        return (self.cls_seg(feats), feats.mean()) if self.training else self.cls_seg(feats)

    def loss_by_feat(self, seg_logits, batch_data_samples):
        losses = super().loss_by_feat(seg_logits[0], batch_data_samples)
        return dict(losses, loss_mean=seg_logits[1].square())


class MyAdapter(Adapter):
    def stage_losses(self, head, logits, outputs, samples):
        return FCNHead.loss_by_feat(head, logits, samples)

    def other_losses(self, head, outputs, samples):
        return dict(loss_mean=outputs[1].square())


ADAPTERS[MyOwnHead] = MyAdapter()
""")
    (tmp_path / 'mine.py').write_text(f"_base_ = '{FAST}'\ncustom_imports = dict(imports=['my_own_head'])\n"
                                      "model = dict(decode_head=dict(_delete_=True, type='MyOwnHead', "
                                      'in_channels=128, in_index=-1, channels=32, num_convs=1, num_classes=19))')
    monkeypatch.syspath_prepend(tmp_path)
    run(monkeypatch, tmp_path / 'mine.py', '-o', tmp_path / 'new.py', '--size', 64, 64)
    assert 'ratio' in capsys.readouterr().err
    assert 'my_own_head' in (tmp_path / 'new.py').read_text()
