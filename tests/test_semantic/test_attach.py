"""``knet_plugin.attach`` and its tool."""

import copy
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from knet_plugin import attach
from knet_plugin.cli import resolve_tool
from knet_plugin.migration import load_source
from knet_plugin.semantic.attach import attached_text
from knet_plugin.semantic.smoke_test import build_segmentor, measure

FCN = 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'
FAST = 'mmseg::fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py'
OCR = 'mmseg::ocrnet/ocrnet_hr18_4xb4-80k_ade20k-512x512.py'
POINT = 'mmseg::point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py'
KNET = 'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py'
OURS = 'knet_plugin.IterativeDecodeHead'


def without_scope(value):
    """A config without the scopes that mmengine notes at foreign bases."""
    if isinstance(value, dict):
        return {key: without_scope(item) for key, item in value.items() if key != '_scope_'}
    return [without_scope(item) for item in value] if isinstance(value, list | tuple) else value


def test_only_the_head_changes():
    stock = load_source(FCN)
    stock.custom_imports = dict(imports='json', allow_failed_imports=True)
    before = copy.deepcopy(stock.to_dict())
    after = attach(stock, 2, dict(interaction=None)).to_dict()
    assert stock.to_dict() == before
    assert after['model']['decode_head'] == dict(type=OURS, num_stages=2, kernel_update_head=dict(interaction=None),
                                                 kernel_generate_head=before['model']['decode_head'])
    assert after['custom_imports'] == dict(imports=['knet_plugin', 'json'], allow_failed_imports=True)
    after['model']['decode_head'], after['custom_imports'] = before['model']['decode_head'], before['custom_imports']
    assert after == before


@pytest.mark.parametrize('name, index', [(OCR, 1), (POINT, 0)])
def test_place_in_a_cascade(name, index):
    heads = attach(load_source(name)).model.decode_head
    assert [head.type == OURS for head in heads] == [i == index for i in range(2)]


@pytest.mark.parametrize('update', [None, dict(interaction=None)])
def test_on_a_knet_it_adds_stages(update):
    once = attach(load_source(KNET), 2, update)
    assert once.model.decode_head.kernel_generate_head.type == 'FCNHead'
    head = build_segmentor(attach(once, 1, update), (64, 64)).decode_head
    assert [stage.interaction is None for stage in head.kernel_update_head] == [False] * 3 + [update is not None] * 3


@pytest.mark.parametrize('name, reason', [
    ('mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py', 'Mask2FormerHead: '),
    ('mmseg::maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py', 'MaskFormerHead: '),
    ('mmseg::san/san-vit-b16_coco-stuff164k-640x640.py', 'SideAdapterCLIPHead: '),
    ('mmseg::vpd/vpd_sd_4xb8-25k_nyu-480x480.py', 'VPDDepthHead: '),
])
def test_refused(name, reason):
    cfg = load_source(name)
    with pytest.raises(ValueError, match=reason):
        attach(cfg)
    with pytest.raises(ValueError, match=reason):
        attached_text(name, cfg)


@pytest.mark.parametrize('model, message', [
    (None, 'model.decode_head'), (dict(type='FasterRCNN'), "model.type='FasterRCNN'"),
    (dict(decode_head=dict(type='NoSuchHead')), "type='NoSuchHead'"),
    (dict(decode_head=dict(type='PointHead')), 'PointHead: '),
])
def test_no_decode_head(model, message):
    with pytest.raises(ValueError, match=message):
        attach(Config(dict(model=model)))


@pytest.mark.parametrize('name', [FCN, OCR, POINT, KNET, 'ours'])
def test_text_is_what_attach_makes(name, tmp_path):
    if name == 'ours':
        name = str(tmp_path / 'base.py')
        Path(name).write_text(f"_base_ = '{FCN}'\nmodel = dict(decode_head=dict(_delete_=True, type='{OURS}', "
                              "init_cfg=dict(type='Normal', std=0.1), kernel_generate_head=_base_.model.decode_head))")
    cfg = load_source(name)
    (tmp_path / 'attached.py').write_text(attached_text(name, cfg))
    read = Config.fromfile(tmp_path / 'attached.py')
    assert without_scope(read.to_dict()) == without_scope(attach(cfg).to_dict())


def test_weights_of_the_plain_model_are_loaded():
    """Training with K-Net can start from a model without it."""
    stock = load_source('mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py')
    plain, ours = build_segmentor(stock, (64, 64)).eval(), build_segmentor(attach(stock), (64, 64)).eval()
    missing, unexpected = ours.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all(key.startswith('decode_head.kernel_update_head.') for key in missing)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        start = ours.decode_head.stage_logits(ours.extract_feat(images))[0]
        torch.testing.assert_close(start, plain(images))


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
    stock = load_source(FAST)
    for name, cfg in (('without', stock), ('with K-Net', attach(stock, 2))):
        cost = measure(build_segmentor(cfg, (64, 96)), (64, 96))
        parameters, flops, *_ = numbers(printed, name)
        assert (parameters, flops) == (round(cost.parameters / 1e6, 2), round(cost.flops / 1e9, 2))
    with pytest.raises(SystemExit, match='exists already'):
        run(monkeypatch, base, '-o', out)


def test_tool_prints_without_out(monkeypatch, capsys):
    run(monkeypatch, FCN.removesuffix('.py'), '--no-trial')
    assert f"_base_ = '{FCN}'" in capsys.readouterr().out


@pytest.mark.parametrize('arguments, message', [
    ((FCN, '--stages', 0), '--stages.*got 0'), ((FCN, '-o', 'new.yaml'), 'new.yaml'),
    (('nowhere.py', ), 'nowhere.py'), (('mmseg::fcn/nothing', ), 'mmseg::fcn/nothing'),
    (('mmseg::san/san-vit-b16_coco-stuff164k-640x640', ), 'SideAdapterCLIPHead: ')])
def test_tool_on_bad_arguments(monkeypatch, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, *arguments, '--no-trial')


def test_tool_names_the_model_that_does_not_run(tmp_path, monkeypatch):
    """And leaves no file, so that the same command can be repeated."""
    (tmp_path / 'wrong.py').write_text(f"_base_ = '{FAST}'\nmodel = dict(decode_head=dict(in_channels=3))")
    with pytest.raises(SystemExit, match='without K-Net.*RuntimeError'):
        run(monkeypatch, tmp_path / 'wrong.py', '-o', tmp_path / 'new.py', '--size', 64, 64)
    assert not (tmp_path / 'new.py').exists()


def test_tool_on_a_config_of_the_new_style(tmp_path, monkeypatch):
    """Such a config cannot be inherited from by _base_, but attach takes it."""
    (tmp_path / 'base.py').write_text(f'model = {load_source(FAST).model.to_dict()}')
    (tmp_path / 'new.py').write_text(
        'from mmengine.config import read_base\n\nwith read_base():\n    from .base import *\n')
    with pytest.raises(SystemExit, match=r'new.py.*knet_plugin.attach'):
        run(monkeypatch, tmp_path / 'new.py', '--no-trial')
    attach(Config.fromfile(tmp_path / 'new.py')).dump(tmp_path / 'attached.py')
    assert Config.fromfile(tmp_path / 'attached.py').model.decode_head.type == OURS


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
