import copy
from pathlib import Path

import pytest
import torch
from attach import build_segmentor
from mmengine.config import Config

from knet_plugin import attach
from knet_plugin.migration import load_source
from knet_plugin.semantic.attach import attached_text

FCN = 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'
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
