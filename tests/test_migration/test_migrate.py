"""Configs of mmseg's K-Net and of the official release become ours, and the models stay what they were."""

import copy
import runpy
import sys
from pathlib import Path

import mmseg
import pytest
import torch
from golden import FOLDERS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS as MMSEG_MODELS
from official_configs import DETECTORS, RUN, SEGMENTORS, official_config
from test_configs import DETECTION, SEMANTIC, build_model, official_weights

from knet_plugin.checkpoint import from_official
from knet_plugin.cli import resolve_config, resolve_tool
from knet_plugin.migration import MigrationError, Report, load_source, migrate_config

STOCK = sorted(path.stem for path in (Path(mmseg.__file__).parent / '.mim/configs/knet').glob('*.py'))
PUBLISHED = {official: name for name, (official, *_) in (SEMANTIC | DETECTION).items()}
HEAVY = [name for name in (*SEGMENTORS, *DETECTORS) if 'swin-l' in name]


def slow(names, heavy):
    return [pytest.param(name, marks=pytest.mark.slow) if name in heavy else name for name in names]


def shapes(model):
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def described(model):
    """Every module with its numbers and switches, and every weight's shape."""
    modules = {name: (type(module).__name__, {
        key: plain(value) for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str | tuple | list | None) and not key.startswith('_')})
        for name, module in model.named_modules()}
    return modules, shapes(model)


def without_pretrained(cfg):
    """A model's config without the weights that it starts from, which would be downloaded."""
    model = copy.deepcopy(cfg.model)
    model.pop('pretrained', None)
    model.backbone.pop('init_cfg', None)
    return Config(dict(model=model, default_scope=cfg.default_scope))


@pytest.mark.parametrize('name', slow(STOCK, [name for name in STOCK if 'swin-l' in name]))
def test_a_stock_config_keeps_its_weights(name):
    source = load_source(f'mmseg::knet/{name}.py')
    before = copy.deepcopy(source.to_dict())
    cfg = migrate_config(source)
    assert source.to_dict() == before
    # Only the decode head is another.
    assert cfg.model.decode_head.type == 'knet_plugin.IterativeDecodeHead'
    assert {key: value for key, value in cfg.to_dict().items() if key not in ('model', 'custom_imports')} == {
        key: value for key, value in before.items() if key != 'model'}
    assert cfg.custom_imports == dict(imports=['knet_plugin'], allow_failed_imports=False)
    for key, value in before['model'].items():
        assert key == 'decode_head' or cfg.model.to_dict()[key] == value
    ours, stock = build_model(without_pretrained(cfg)), build_model(without_pretrained(source))
    renamed = from_official(stock.state_dict(), ours)
    assert {key: tuple(value.shape) for key, value in renamed.items()} == shapes(ours)


@pytest.mark.parametrize('name', slow(STOCK, [name for name in STOCK if 'fcn' not in name]))
def test_a_stock_config_gives_the_same_outputs(name):
    """The whole segmentor; mmseg's weights are renamed by themselves."""
    source = load_source(f'mmseg::knet/{name}.py')
    generator = torch.Generator().manual_seed(0)
    models = []
    for cfg in (source, migrate_config(source)):
        with DefaultScope.overwrite_default_scope('mmseg'):
            models.append(MMSEG_MODELS.build(without_pretrained(cfg).model).double().eval())
    stock, ours = models
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    ours.load_state_dict(stock.state_dict())
    images = torch.randn(2, 3, 64, 96, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = stock(images)
        expected = expected[-1] if isinstance(expected, list) else expected
        torch.testing.assert_close(ours(images), expected, rtol=1e-8, atol=1e-8 * expected.abs().max().item())


@pytest.mark.parametrize('name', slow([*SEGMENTORS, *DETECTORS], HEAVY))
def test_an_official_config_becomes_the_published_model(name):
    official = official_config(name)
    before = copy.deepcopy(official)
    report = Report()
    cfg = migrate_config(official, report)
    assert official == before
    assert cfg.keys() == {'model', 'default_scope', 'custom_imports'}
    assert cfg.custom_imports.imports == ['knet_plugin']
    model = build_model(without_pretrained(cfg))
    from_official(official_weights(name), model)
    published = Config.fromfile(resolve_config(PUBLISHED[name]))
    ours, expected = (described(each) for each in (model, build_model(without_pretrained(published))))
    for modules, _ in (ours, expected):
        modules.pop('data_preprocessor')
        modules.get('neck', ({}, {}))[1].pop('add_extra_convs', None)  # four levels need no extra ones
    assert ours == expected
    by_hand = {line.split()[2].partition('=')[0] for line in report.lines() if line.startswith('by hand')}
    swin = {'model.pretrained'} if name in SEGMENTORS and 'swin' in name else set()
    assert by_hand == {*RUN, 'model.data_preprocessor'} | swin


def plain(value):
    """Lists for tuples, as the goldens' JSON has them, and without the scope that mmengine notes in a host's bases."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != '_scope_'}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize('name', ['knet_s3_r50_fpn_1x_coco-panoptic', 'knet_s3_fcn_r50-d8_80k_adamw_ade20k'])
def test_a_migrated_file_is_a_config(name, tmp_path):
    cfg = migrate_config(official_config(name))
    cfg.dump(tmp_path / 'migrated.py')
    assert Config.fromfile(tmp_path / 'migrated.py').to_dict() == cfg.to_dict()


def changed(path, value, name='knet_s3_r50_fpn_1x_coco-panoptic'):
    """An official config with one option set, and the option's full path."""
    cfg = official_config(name)
    part = cfg
    *folders, last = path.split('.')
    for folder in folders:
        key, _, index = folder.partition('[')
        part = part[key] if not index else part[key][int(index[:-1])]
    part[last] = value
    return cfg


@pytest.mark.parametrize('path', [
    'model.foo', 'model.rpn_head.foo', 'model.rpn_head.localization_fpn.foo', 'model.roi_head.foo',
    'model.roi_head.mask_head[0].foo', 'model.roi_head.mask_head[2].kernel_updator_cfg.foo',
    'model.train_cfg.foo', 'model.train_cfg.rcnn[1].assigner.foo', 'model.test_cfg.rcnn.foo',
    'model.test_cfg.rcnn.merge_stuff_thing.foo'
])
def test_unknown_options_are_errors(path):
    with pytest.raises(MigrationError) as error:
        migrate_config(changed(path, 7))
    assert f'{path}=7: unknown option' in str(error.value)


@pytest.mark.parametrize('path, value', [
    ('model.rpn_head.hard_target', True), ('model.roi_head.hard_target', True), ('model.roi_head.recursive', True),
    ('model.roi_head.post_assign', True), ('model.roi_head.assign_stages', 1), ('model.rpn_head.num_seg_convs', 2),
    ('model.rpn_head.semantic_fpn', False), ('model.rpn_head.num_classes', 80),
    ('model.rpn_head.localization_fpn.start_level', 1), ('model.roi_head.mask_head[0].out_channels', 128),
    ('model.roi_head.mask_head[0].feat_gather_stride', 2), ('model.roi_head.mask_head[0].act_cfg', dict(type='GELU')),
    ('model.roi_head.mask_head[0].kernel_updator_cfg.norm_cfg', dict(type='BN')),
    ('model.roi_head.mask_head[0].kernel_updator_cfg.feat_channels', 64),
    ('model.roi_head.mask_head[0].feat_transform_cfg', dict(conv_cfg=dict(type='Conv2d'))),
    ('model.roi_head.mask_head[0].mask_transform_stride', 3), ('model.roi_head.mask_head[2].kernel_init', True),
    ('model.roi_head.mask_head[1].loss_dice.loss_weight', 3.0), ('model.roi_head.mask_head[1].loss_rank', None),
    ('model.roi_head.mask_head[0].loss_mask.use_sigmoid', False), ('model.roi_head.mask_head[0].loss_cls', None),
    ('model.train_cfg.rcnn[0].pos_weight', 3), ('model.train_cfg.rcnn[0].assigner.topk', 3),
    ('model.train_cfg.rpn.assigner.boundary_cost', dict(type='X')),
])
def test_unsupported_values_are_errors(path, value):
    with pytest.raises(MigrationError) as error:
        migrate_config(changed(path, value))
    assert path.rpartition('.')[0] in str(error.value) and 'unknown option' not in str(error.value)
    assert path.rpartition('.')[2] in str(error.value)


def test_larger_kernels_have_no_channel_groups():
    cfg = changed('model.roi_head.mask_head[0].conv_kernel_size', 3)
    cfg['model']['roi_head']['mask_head'][0]['kernel_updator_cfg'].update(in_channels=128, feat_channels=128)
    with pytest.raises(MigrationError, match=r'mask_head\[0\]\.conv_kernel_size=3: .*in_channels=128'):
        migrate_config(cfg)


@pytest.mark.parametrize('path', [
    'model.test_cfg.rcnn.merge_stuff_thing.iou_thr', 'model.test_cfg.rcnn.merge_stuff_thing.stuff_max_area',
    'model.test_cfg.rcnn.stuff_score_thr', 'model.roi_head.merge_cls_scores', 'model.roi_head.thing_label_in_seg',
    'model.roi_head.mask_head[0].mask_out_stride', 'model.rpn_head.mask_out_stride',
    'model.roi_head.mask_head[0].relative_coors'])
def test_options_without_effect_are_reported(path):
    report = Report()
    migrate_config(changed(path, 7), report)
    assert any(line.startswith(f'dropped  {path.replace("[0]", "[*]")}=7: ') for line in report.lines())


@pytest.mark.parametrize('options', [dict(kernel_init_std=0.01), dict(xavier_init_kernel=True),
                                     dict(conv_normal_init=False)])
def test_other_initialisations_are_left_to_the_user(options):
    cfg = official_config('knet_s3_r50_fpn_1x_coco')
    cfg['model']['rpn_head'].update(options)
    report = Report()
    migrate_config(cfg, report)
    assert any(line.startswith('by hand  model.rpn_head=') and 'init_cfg' in line for line in report.lines())


@pytest.mark.parametrize('model, message', [
    (dict(type='MaskRCNN', backbone=dict()), "model.type='MaskRCNN'"),
    (dict(type='EncoderDecoder', decode_head=dict(type='knet_plugin.IterativeDecodeHead')), 'EncoderDecoder'),
    (None, 'model.type=None')
])
def test_other_models_are_refused(model, message):
    with pytest.raises(MigrationError, match=message):
        migrate_config(dict(model=model))


@pytest.mark.parametrize('given, expected', [
    (None, ['knet_plugin']), (dict(imports='mine'), ['knet_plugin', 'mine']), (dict(imports=None), ['knet_plugin']),
    (dict(imports=['mine', 'knet_plugin']), ['knet_plugin', 'mine'])])
def test_imports_of_a_stock_config(given, expected):
    source = load_source(f'mmseg::knet/{STOCK[0]}.py')
    source.custom_imports = given
    assert migrate_config(source).custom_imports.imports == expected


def test_tool(tmp_path, monkeypatch, capsys):
    def run(source, out):
        monkeypatch.setattr(sys, 'argv', ['migrate_config', str(source), '-o', str(out)])
        runpy.run_path(str(resolve_tool('migrate_config')), run_name='__main__')

    source, out = tmp_path / 'official.py', tmp_path / 'new/ours.py'
    Config(official_config('knet_s3_r50_fpn_1x_coco-panoptic')).dump(source)
    run(source, out)
    printed = capsys.readouterr().out
    assert 'dropped  model.test_cfg.rcnn.merge_stuff_thing.iou_thr=0.5: ' in printed
    assert 'by hand  optimizer=' in printed
    assert Config.fromfile(out).model.type == 'knet_plugin.KNet'
    run('mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512', tmp_path / 'stock.py')
    assert Config.fromfile(tmp_path / 'stock.py').model.decode_head.type == 'knet_plugin.IterativeDecodeHead'
    (tmp_path / 'broken.py').write_text('model = (')
    for given, new, message in ((source, out, 'exists already'), (source, tmp_path / 'x.json', '.json'),
                                (tmp_path / 'other.py', tmp_path / 'x.py', 'other.py'),
                                (out, tmp_path / 'x.py', "model.type='knet_plugin.KNet'"),
                                (tmp_path / 'broken.py', tmp_path / 'x.py', 'broken.py cannot be read: SyntaxError')):
        with pytest.raises(SystemExit, match=message):
            run(given, new)


def test_official_keys_are_complete():
    names = {path.stem for folder in FOLDERS for path in (folder / 'official_keys').glob('*.json')}
    assert names == {*SEGMENTORS, *DETECTORS}
