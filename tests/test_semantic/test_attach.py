"""``knet_plugin.attach`` and its tool."""

import copy
import errno
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from knet_plugin import attach
from knet_plugin.cli import resolve_tool
from knet_plugin.migration import Report, load_source
from knet_plugin.migration.semantic import decode_head_config
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
    before = copy.deepcopy(stock.to_dict())
    after = attach(stock, 2)
    assert stock.to_dict() == before
    assert after.model.decode_head.to_dict() == dict(type=OURS, num_stages=2,
                                                     kernel_generate_head=before['model']['decode_head'])
    assert after.custom_imports == dict(imports=['knet_plugin'], allow_failed_imports=False)
    changed = after.to_dict()
    changed['model']['decode_head'] = before['model']['decode_head']
    del changed['custom_imports']
    assert changed == before


def test_options_of_the_stages():
    head = attach(load_source(FCN), 1, dict(interaction=None)).model.decode_head
    assert head.kernel_update_head == dict(interaction=None)


@pytest.mark.parametrize('name, index', [(OCR, 1), (POINT, 0)])
def test_place_in_a_cascade(name, index):
    heads = attach(load_source(name)).model.decode_head
    assert [head.type == OURS for head in heads] == [i == index for i in range(2)]


def test_other_imports_stay():
    cfg = load_source(FCN)
    cfg.custom_imports = dict(imports='json', allow_failed_imports=True)
    assert attach(cfg).custom_imports == dict(imports=['knet_plugin', 'json'], allow_failed_imports=True)


@pytest.mark.parametrize('update', [None, dict(interaction=None)])
def test_on_a_knet_it_adds_stages(update):
    once = attach(load_source(KNET), 2, update)
    assert once.model.decode_head.num_stages == 5
    assert once.model.decode_head.kernel_generate_head.type == 'FCNHead'
    twice = attach(once, 1, update)
    assert twice.model.decode_head.num_stages == 6
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = build_segmentor(twice, (64, 64)).decode_head
    assert [stage.interaction is None for stage in head.kernel_update_head] == [False] * 3 + [update is not None] * 3


def test_on_a_knet_without_stages():
    cfg = attach(load_source(FCN), 0)
    cfg.model.decode_head.kernel_update_head = []
    assert attach(cfg, 2).model.decode_head.kernel_update_head == [{}, {}]


def test_on_a_knet_only_what_differs_is_said():
    """Stages are those of the whole migrated config, of the K-Net as published and of one that differs."""
    stock = load_source(KNET)
    for changes in ({}, dict(feat_transform_cfg=None, num_mask_fcs=2, feedforward_channels=64)):
        for stage in stock.model.decode_head.kernel_update_head:
            stage.update(changes)
        head = attach(stock, 1).model.decode_head
        said = head.get('kernel_update_head')
        assert said == (dict(feat_transform=False, num_mask_fcs=2, interaction=dict(feedforward_channels=64))
                        if changes else None)
        whole = decode_head_config(stock.model.decode_head, Report())
        models = []
        for update in (said, whole['kernel_update_head']):
            cfg = copy.deepcopy(stock)
            cfg.model.decode_head = dict(whole, kernel_update_head=update, num_stages=1)
            models.append(build_segmentor(cfg, (64, 64)))
        assert repr(models[0].decode_head.kernel_update_head) == repr(models[1].decode_head.kernel_update_head)


@pytest.mark.parametrize('name, reason', [
    ('mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py', 'Mask2FormerHead: its masks are of learned'),
    ('mmseg::maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py', 'MaskFormerHead: its masks are of learned'),
    ('mmseg::san/san-vit-b16_coco-stuff164k-640x640.py', 'SideAdapterCLIPHead: its vocabulary is open'),
    ('mmseg::vpd/vpd_sd_4xb8-25k_nyu-480x480.py', 'VPDDepthHead: it estimates depth'),
])
def test_refused(name, reason):
    cfg = load_source(name)
    with pytest.raises(ValueError, match=reason):
        attach(cfg)
    with pytest.raises(ValueError, match=reason):
        attached_text(name, cfg)


@pytest.mark.parametrize('model, message', [
    (None, 'no model.decode_head'), (dict(), 'no model.decode_head; model.type=None'),
    ('x', "model must be a dict, got model='x'"), (dict(decode_head=3), 'got 3'), (dict(decode_head=[]), r'got \[\]'),
    (dict(type='FasterRCNN'), "model.type='FasterRCNN' is no segmentor of mmseg"),
    (dict(decode_head=dict(type=7)), 'type must be a class or its name, got 7'),
    (dict(decode_head=dict(type='NoSuchHead')), "type='NoSuchHead' is not registered"),
    (dict(decode_head=dict(type='PointHead')), 'it sees sampled points only'),
])
def test_no_decode_head(model, message):
    with pytest.raises(ValueError, match=message):
        attach(Config(dict(model=model)))


@pytest.mark.parametrize('arguments, error, message', [
    (({'model': {}}, ), TypeError, 'cfg must be a Config of mmengine, got dict'),
    ((FCN, ), TypeError, 'got str'),
    ((None, -1), ValueError, 'num_stages=-1'),
    ((None, '3'), ValueError, "num_stages='3'"),
    ((None, True), ValueError, 'num_stages=True'),
    ((None, 2, [{}, {}]), TypeError, 'one dict for all stages'),
])
def test_bad_arguments(arguments, error, message):
    first, *others = arguments
    with pytest.raises(error, match=message):
        attach(first or load_source(FCN), *others)


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
    """What is trained without K-Net is where K-Net starts from."""
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
    """Parameters (M), GFLOPs, seconds and loss, or their ratios, of a line of the report."""
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
    assert '64 x 96' in printed
    stock = load_source(FAST)
    costs = [measure(build_segmentor(cfg, (64, 96)), (64, 96)) for cfg in (stock, attach(stock, 2))]
    reported = [numbers(printed, name) for name in ('without', 'with K-Net')]
    for cost, (parameters, flops, seconds, loss) in zip(costs, reported, strict=True):
        assert (parameters, flops) == (round(cost.parameters / 1e6, 2), round(cost.flops / 1e9, 2))
        assert seconds > 0 and loss > 0
    assert reported[0][3] < reported[1][3]  # K-Net has losses of its own
    assert numbers(printed, 'ratio')[:2] == [round(costs[1].parameters / costs[0].parameters, 2),
                                             round(costs[1].flops / costs[0].flops, 2)]
    with pytest.raises(SystemExit, match='exists already'):
        run(monkeypatch, base, '-o', out)
    with pytest.raises(SystemExit, match='there is no config'):
        run(monkeypatch, 'nowhere.py')
    with pytest.raises(SystemExit, match='there is no config mmseg::fcn/nothing.py'):
        run(monkeypatch, 'mmseg::fcn/nothing')
    with pytest.raises(SystemExit, match='its vocabulary is open'):
        run(monkeypatch, 'mmseg::san/san-vit-b16_coco-stuff164k-640x640')
    with pytest.raises(SystemExit, match="model.type='FasterRCNN' is no segmentor"):
        run(monkeypatch, 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco')


@pytest.mark.parametrize('options, message', [
    (('--stages', -1), '--stages must be 1 or more, got -1'), (('--stages', 0), '--stages must be 1 or more, got 0'),
    (('--size', 0, 0), '--size must be height and width in pixels, got 0 0'), (('--size', -3, 64), 'got -3 64'),
    (('-o', 'new.yaml'), '--out must be a file with the ending .py, got new.yaml')])
def test_tool_on_bad_options(monkeypatch, options, message):
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, FCN, '--no-trial', *options)


@pytest.mark.parametrize('change, message', [
    ('decode_head=dict(in_channels=3)', 'does not run, even without K-Net: RuntimeError'),
    ("decode_head=dict(loss_decode=dict(loss_weight=float('nan')))", 'without K-Net: FloatingPointError: these losses'),
])
def test_tool_says_what_does_not_run(tmp_path, monkeypatch, change, message):
    """And leaves nothing, so that the same command can be given once more."""
    (tmp_path / 'wrong.py').write_text(f"_base_ = '{FAST}'\nmodel = dict({change})")
    for _ in range(2):
        with pytest.raises(SystemExit, match=message):
            run(monkeypatch, tmp_path / 'wrong.py', '-o', tmp_path / 'new.py', '--size', 64, 64)
    assert not (tmp_path / 'new.py').exists()


def test_tool_tries_the_model_with_knet_too(tmp_path, monkeypatch):
    (tmp_path / 'bypassing.py').write_text("""
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS


@MODELS.register_module()
class BypassingHead(FCNHead):
    def forward(self, inputs):
        return self.conv_seg(self._forward_feature(inputs))
""")
    (tmp_path / 'mine.py').write_text(f"_base_ = '{FAST}'\ncustom_imports = dict(imports=['bypassing'])\n"
                                      "model = dict(decode_head=dict(_delete_=True, type='BypassingHead', "
                                      'in_channels=128, in_index=-1, channels=32, num_convs=1, num_classes=19))')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit, match='runs without K-Net, but not with it: TypeError: BypassingHead classifies'):
        run(monkeypatch, tmp_path / 'mine.py', '-o', tmp_path / 'new.py', '--size', 64, 64)
    assert not (tmp_path / 'new.py').exists()


def test_tool_on_imports_of_another_form(tmp_path, monkeypatch):
    (tmp_path / 'mine.py').write_text(f"_base_ = '{FAST}'\ncustom_imports = ['json']")
    with pytest.raises(SystemExit, match='custom_imports must be a dict with imports'):
        run(monkeypatch, tmp_path / 'mine.py', '--no-trial')


def test_tool_on_a_config_of_the_new_style(tmp_path, monkeypatch):
    """It is refused, with a way that works."""
    (tmp_path / 'base.py').write_text(f'model = {load_source(FAST).model.to_dict()}')
    (tmp_path / 'new.py').write_text(
        'from mmengine.config import read_base\n\nwith read_base():\n    from .base import *\n')
    with pytest.raises(SystemExit, match=r'new.py is of mmengine.s new style.*use knet_plugin.attach'):
        run(monkeypatch, tmp_path / 'new.py', '--no-trial')
    attach(Config.fromfile(tmp_path / 'new.py')).dump(tmp_path / 'attached.py')
    head = Config.fromfile(tmp_path / 'attached.py').model.decode_head
    assert (head.type, head.kernel_generate_head.type) == (
        'knet_plugin.IterativeDecodeHead', 'DepthwiseSeparableFCNHead')


def test_tool_below_a_file(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit, match='x.py cannot be written: .*Errno'):
        run(monkeypatch, FAST, '--no-trial', '-o', tmp_path / 'file/x.py')


def test_tool_on_a_full_disk(tmp_path, monkeypatch):
    write_text = Path.write_text

    def fill(path, text):
        write_text(path, text[:10])
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_text', fill)
        with pytest.raises(SystemExit, match='x.py cannot be written: .*No space left'):
            run(monkeypatch, FAST, '--no-trial', '-o', tmp_path / 'x.py')
    assert not list(tmp_path.iterdir())


def test_tool_below_links(tmp_path, monkeypatch):
    """The base is found, by whichever way the file is read."""
    (tmp_path / 'deep/er').mkdir(parents=True)
    (tmp_path / 'link').symlink_to('deep/er')
    (tmp_path / 'base.py').write_text(f"_base_ = '{FAST}'")
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, 'base.py', '--no-trial', '-o', 'link/new.py')
    run(monkeypatch, 'base.py', '--no-trial', '-o', 'deep/plain.py')
    for path in ('link/new.py', 'deep/er/new.py', 'deep/plain.py'):
        assert Config.fromfile(path).model.decode_head.type == OURS
    assert "_base_ = '../base.py'" in (tmp_path / 'deep/plain.py').read_text()


def test_tool_on_a_head_of_ones_own(tmp_path, monkeypatch, capsys):
    """Its module is imported, so that it is registered, and its adapter, too."""
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


ADAPTERS[MyOwnHead] = Adapter(once=('loss_mean', ))
""")
    (tmp_path / "it's mine.py").write_text(f"_base_ = '{FAST}'\ncustom_imports = dict(imports=['my_own_head'])\n"
                                           "model = dict(decode_head=dict(_delete_=True, type='MyOwnHead', "
                                           'in_channels=128, in_index=-1, channels=32, num_convs=1, num_classes=19))')
    monkeypatch.syspath_prepend(tmp_path)
    run(monkeypatch, tmp_path / "it's mine.py", '-o', tmp_path / 'new.py', '--size', 64, 64)
    assert 'ratio' in capsys.readouterr().err
    assert 'my_own_head' in (tmp_path / 'new.py').read_text()


def test_tool_prints_without_out(monkeypatch, capsys):
    run(monkeypatch, FCN.removesuffix('.py'), '--no-trial')
    assert f"_base_ = '{FCN}'" in capsys.readouterr().out
