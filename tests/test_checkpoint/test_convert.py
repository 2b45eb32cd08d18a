"""Conversion of official weights: all 16 published key lists, in both directions."""

import runpy
import sys

import pytest
import torch
from detection_cases import detector
from golden import Golden, build, detector_config
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_checkpoint
from test_configs import DETECTION, SEMANTIC, build_model, official_weights

from knet_plugin.checkpoint import convert_checkpoint, convert_weights, to_official
from knet_plugin.checkpoint.key_map import modern_swin
from knet_plugin.cli import resolve_config, resolve_tool

PUBLISHED = {name: row[0] for name, row in (SEMANTIC | DETECTION).items() if row[0]}


def random_weights(official):
    generator = torch.Generator().manual_seed(0)
    counts = ('num_batches_tracked', 'relative_position_index')  # integers
    return {key: torch.randint(100, value.shape, generator=generator) if key.endswith(counts) else
            torch.rand(value.shape, generator=generator) for key, value in official_weights(official).items()}


@pytest.mark.slow
@pytest.mark.parametrize('name, official', PUBLISHED.items(), ids=PUBLISHED)
def test_published_weights_load_and_go_back(name, official, tmp_path):
    """All 16 key lists, with numbers: through a file, strictly, every one in its place; and back."""
    weights = random_weights(official)
    torch.save(dict(meta=dict(CLASSES=('a', 'b'), PALETTE=[(0, 0, 0)] * 2), state_dict=weights), tmp_path / 'in.pth')
    model = build_model(Config.fromfile(resolve_config(name)))
    if next(model.parameters()).is_meta:
        model = model.to_empty(device='cpu')
    report = convert_checkpoint(tmp_path / 'in.pth', tmp_path / 'out.pth', model)
    content = torch.load(tmp_path / 'out.pth', weights_only=True)
    assert content['meta']['dataset_meta']['classes'] == ('a', 'b')
    model.load_state_dict(content['state_dict'])
    assert len(report.mapped) + len(report.dropped) == len(weights)
    state = model.state_dict()
    assert all(torch.equal(state[target], weights[source]) for source, target in report.mapped.items())
    back = to_official(state, model)
    assert back.keys() == weights.keys() and all(torch.equal(back[key], weights[key]) for key in weights)


def test_mismatches_are_logged_where_loading_is_not_strict(tmp_path, caplog):
    golden = Golden('knet_instance_trained')
    torch.save(golden.state, tmp_path / 'official.pth')
    model = build(detector_config(Golden('knet_panoptic_trained').config))
    logger = MMLogger.get_instance('convert-test')
    logger.addHandler(caplog.handler)
    load_checkpoint(model, str(tmp_path / 'official.pth'), map_location='cpu')
    assert 'the file has 6 classes, the model 10' in caplog.text


def changed(**changes):
    """A small detector's config with changes along dotted paths."""
    cfg = Config(detector_config(Golden('knet_instance_trained').config))
    cfg.merge_from_dict(changes)
    return build(cfg)


@pytest.mark.parametrize('changes, reason', [
    ({'panoptic_head.num_things_classes': 7, 'panoptic_head.kernel_update_head.classifier.num_classes': 7},
     'the file has 6 classes, the model 7'),
    ({'panoptic_head.kernel_head.num_kernels': 20}, 'the file has 12 instance kernels, the model 20'),
    ({'backbone.depth': 34}, r'the backbones differ \(blocks by stage: \[2, 2, 2, 2\] in the file, \[3, 4, 6, 3\]'),
    ({'backbone.base_channels': 16, 'neck.in_channels': [16, 32, 64, 128]}, 'the backbones differ: check type'),
])
def test_reasons(changes, reason):
    golden = Golden('knet_instance_trained')
    with pytest.raises(ValueError, match=reason):
        convert_weights(golden.state, changed(**changes))


def test_missing_stages():
    golden = Golden('knet_instance_trained')
    fewer = {key: value for key, value in golden.state.items() if not key.startswith('roi_head.mask_head.2.')}
    with pytest.raises(ValueError, match='the file has 2 update stages, the model 3'):
        convert_weights(fewer, detector(golden))


def test_old_files_without_counters():
    """What a host computes is filled in where an older one did not keep it."""
    golden = Golden('knet_instance_trained')
    model = detector(golden)
    fewer = {key: value for key, value in golden.state.items() if not key.endswith('num_batches_tracked')}
    assert len(fewer) < len(golden.state)
    assert convert_weights(fewer, model)[0].keys() == model.state_dict().keys()


def test_one_weight_under_two_names():
    golden = Golden('knet_instance_trained')
    model = detector(golden)
    with pytest.raises(ValueError, match='given twice:\n.*: the same weight as panoptic_head'):
        convert_weights({**model.state_dict(), **golden.state}, model)


def test_own_weights_are_checked_too():
    model = detector(Golden('knet_instance_trained'))
    weights = dict(model.state_dict())
    key = 'panoptic_head.kernel_update_head.0.classifier.fc_cls.weight'
    weights[key] = weights[key][:3]
    with pytest.raises(ValueError, match='the file has 3 classes, the model 6'):
        convert_weights(weights, model)


def test_own_weights_pass_unchanged():
    model = detector(Golden('knet_instance_trained'))
    weights, report = convert_weights(model.state_dict(), model)
    assert all(weights[key] is value or torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert not report.dropped


def original_swin(modern):
    """The layout before mmdet's: what ``modern_swin`` undoes, written the other way round."""
    result = {}
    for key, value in modern.items():
        if key.endswith('relative_position_index'):
            key = key.replace('attn.w_msa.', 'attn.')
        if 'downsample.reduction' in key:
            out, channels = value.shape
            value = value.reshape(out, channels // 4, 4).transpose(1, 2)[:, [0, 2, 1, 3]].reshape(out, channels)
        elif 'downsample.norm' in key:
            value = value.reshape(-1, 4).transpose(0, 1)[[0, 2, 1, 3]].reshape(-1)
        for new, old in (('backbone.stages', 'backbone.layers'), ('attn.w_msa.', 'attn.'),
                         ('ffn.layers.0.0.', 'mlp.fc1.'), ('ffn.layers.1.', 'mlp.fc2.'),
                         ('patch_embed.projection', 'patch_embed.proj')):
            key = key.replace(new, old) if key.startswith('backbone.') else key
        result[key] = value
    return result


def test_original_swin_layout():
    weights = {key: torch.rand(value.shape) for key, value in official_weights(
        'knet_s3_upernet_swin-t_80k_adamw_ade20k').items() if key.startswith('backbone.')}
    modern = modern_swin(original_swin(weights), torch.nn.Module())
    assert modern.keys() == weights.keys()
    assert all(torch.equal(modern[key], weights[key]) for key in weights)


def test_other_backbones_with_layers_are_left_alone():
    others = {key: torch.rand(2) for key in ('backbone.layers.0.ln1.weight', 'backbone.layers.0.1.0.norm1.weight',
                                             'backbone.patch_embed.projection.weight')}
    assert modern_swin(others, torch.nn.Module()) == others


def test_a_backbone_with_the_original_names_keeps_them():
    model = torch.nn.Module()
    model.backbone = torch.nn.Module()
    model.backbone.layers = torch.nn.ModuleList([torch.nn.Module()])
    model.backbone.layers[0].blocks = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    weights = model.state_dict()
    assert list(weights) == ['backbone.layers.0.blocks.0.weight', 'backbone.layers.0.blocks.0.bias']
    assert modern_swin(weights, model) == weights


def test_detector_loads_the_original_swin_by_itself():
    cfg = detector_config(Golden('knet_panoptic_trained').config)
    cfg['backbone'] = dict(type='mmdet.SwinTransformer', embed_dims=8, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 2),
                           window_size=4)
    cfg['neck'] = dict(cfg['neck'], in_channels=[8, 16, 32, 64])
    modern, fresh = build(cfg), build(cfg)
    official = original_swin(to_official(modern.state_dict(), modern))
    assert any(key.startswith('backbone.layers.') for key in official)
    fresh.load_state_dict(dict(official, **{'backbone.layers.0.blocks.0.attn_mask': torch.zeros(1)}), strict=False)
    assert all(torch.equal(value, modern.state_dict()[key]) for key, value in fresh.state_dict().items())
    fresh.load_state_dict(official)  # strictly
    weights, report = convert_weights(official, fresh)
    assert set(report.mapped) == set(official) and weights.keys() == fresh.state_dict().keys()


def test_target_is_written_whole_or_not_at_all(tmp_path):
    model = detector(Golden('knet_instance_trained'))
    target = tmp_path / 'out.pth'
    target.write_bytes(b'precious')
    bad = tmp_path / 'bad.pth'
    bad.write_bytes(b'<html>')
    torch.save({'state_dict': {'a': torch.rand(1)}}, tmp_path / 'other.pth')
    for source in ('bad.pth', 'other.pth', 'nowhere.pth'):
        with pytest.raises((ValueError, FileNotFoundError)):
            convert_checkpoint(tmp_path / source, target, model)
    assert target.read_bytes() == b'precious'
    assert {path.name for path in tmp_path.iterdir()} == {'out.pth', 'bad.pth', 'other.pth'}


@pytest.fixture
def tool(monkeypatch):
    """The tool, to be called with the words of a command line."""
    def call(*words):
        monkeypatch.setattr(sys, 'argv', ['convert_checkpoint', *map(str, words)])
        runpy.run_path(str(resolve_tool('convert_checkpoint')), run_name='__main__')
    return call


def test_tool(tmp_path, tool, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    golden = Golden('knet_panoptic_trained')
    Config(dict(model=dict(detector_config(golden.config)), default_scope='mmdet')).dump('config.py')
    torch.save(dict(meta=dict(CLASSES=('a', 'b')), state_dict=golden.state, optimizer={}), 'official.pth')
    tool('official.pth', 'ours.pth', '--config', 'config.py')
    printed = capsys.readouterr().out
    assert f'{len(golden.state)} weights' in printed and 'optimizer' in printed
    meta = torch.load('ours.pth', weights_only=True)['meta']
    assert meta['config'] == 'config.py' and meta['source'] == 'official.pth'
    with pytest.raises(SystemExit, match='--overwrite'):
        tool('official.pth', 'ours.pth', '--config', 'config.py')
    tool('ours.pth', 'back.pth', '--config', 'config.py', '--to', 'official')
    content = torch.load('back.pth', weights_only=True)
    assert all(torch.equal(content['state_dict'][key], value) for key, value in golden.state.items())
    assert content['meta']['CLASSES'] == ('a', 'b')  # where mmdet 2 looks
    (tmp_path / 'empty.py').write_text('a = 1')
    for words, message in ((('official.pth', 'no.pth', '--config', 'empty.py'), r'empty\.py'),
                           (('official.pth', 'no.pth', '--config', 'nowhere.py'), r'nowhere\.py'),
                           (('official.pth', 'nowhere/no.pth', '--config', 'config.py'), 'nowhere'),
                           (('config.py', 'no.pth', '--config', 'config.py'), r'config\.py is no checkpoint')):
        with pytest.raises(SystemExit, match=message):
            tool(*words)
