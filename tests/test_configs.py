"""All configs build; the published models have the parameters and shapes of the official release."""

import json
from contextlib import nullcontext

import pytest
import torch
from golden import FOLDERS
from mmengine.config import Config
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope, init_default_scope

from knet_plugin.checkpoint import from_official
from knet_plugin.cli import list_configs, resolve_config

# Config: name in the official release, number of parameters and, as the paper counts them, of trained ones in millions.
SEMANTIC = {
    'knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512': ('knet_s3_fcn_r50-d8_80k_adamw_ade20k', 62_810_508),
    'knet-s3_r50-d8_pspnet_8xb2-adamw-80k_ade20k-512x512': ('knet_s3_pspnet_r50-d8_80k_adamw_ade20k', 62_288_268),
    'knet-s3_r50-d8_deeplabv3_8xb2-adamw-80k_ade20k-512x512': ('knet_s3_deeplabv3_r50-d8_80k_adamw_ade20k', 81_425_804),
    'knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512': ('knet_s3_upernet_r50-d8_80k_adamw_ade20k', 45_660_300),
    'knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512': ('knet_s3_upernet_swin-t_80k_adamw_ade20k', 43_632_614),
    'knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-512x512': ('knet_s3_upernet_swin-l_80k_adamw_ade20k', 214_722_752),
    'knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-640x640': ('knet_s3_upernet_swin-l_80k_adamw_640x640_ade20k',
                                                             214_722_752),
}
DETECTION = {
    'knet-s3_r50_fpn_1x_coco': ('knet_s3_r50_fpn_1x_coco', 37_482_368, 37.26),
    'knet-s3_r50_fpn_ms-3x_coco': ('knet_s3_r50_fpn_ms-3x_coco', 37_482_368, 37.26),
    'knet-s3-n256_r50_fpn_ms-3x_coco': (None, 37_522_304, 37.30),
    'knet-s3_r101_fpn_ms-3x_coco': ('knet_s3_r101_fpn_ms-3x_coco', 56_474_496, 56.25),
    'knet-s3-n256_r101_fpn_ms-3x_coco': (None, 56_514_432, 56.29),
    'knet-s3_r101-dconv-c3-c5_fpn_ms-3x_coco': ('knet_s3_r101_dcn-c3-c5_fpn_ms-3x_coco', 57_760_668, 57.54),
    'knet-s3_r50_fpn_1x_coco-panoptic': ('knet_s3_r50_fpn_1x_coco-panoptic', 37_536_852, 37.31),
    'knet-s3_r50_fpn_ms-3x_coco-panoptic': ('knet_s3_r50_fpn_ms-3x_coco-panoptic', 37_536_852, 37.31),
    'knet-s3_r101_fpn_ms-3x_coco-panoptic': ('knet_s3_r101_fpn_ms-3x_coco-panoptic', 56_528_980, 56.30),
    'knet-s3_r101-dconv-c3-c5_fpn_ms-3x_coco-panoptic': ('knet_s3_r101_dcn-c3-c5_fpn_ms-3x_coco-panoptic', 57_815_152,
                                                         57.59),
    'knet-s3_swin-l-p4-w7_fpn_16xb2-ms-3x_coco-panoptic': ('knet_s3_swin-l_fpn_ms-3x_16x2_coco-panoptic', 208_781_224,
                                                           208.78),
}


def build_model(cfg):
    scope = cfg.get('default_scope', 'mmseg')
    init_default_scope(scope)
    # These compute with tensors when they are built, which the meta device does not support.
    computing = cfg.model.backbone.type.endswith(('SwinTransformer', 'EfficientNetLite0'))
    device = nullcontext() if computing else torch.device('meta')
    with DefaultScope.overwrite_default_scope(scope), device:
        return MODELS.build(cfg.model)


def learning_rate_drops(cfg):
    """Iterations after which the learning rate drops, found by running the schedule."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = [PARAM_SCHEDULERS.build(dict(scheduler), default_args=dict(optimizer=optimizer))
                  for scheduler in cfg.param_scheduler]
    for iteration in range(1, cfg.train_cfg.max_iters):
        before = optimizer.param_groups[0]['lr']
        for scheduler in schedulers:
            scheduler.step()
        if optimizer.param_groups[0]['lr'] < 0.5 * before:
            yield iteration


def official_weights(name):
    path = next(folder / f'official_keys/{name}.json' for folder in FOLDERS
                if (folder / f'official_keys/{name}.json').exists())
    shapes = json.loads(path.read_text())['state_dict']
    return {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}


# tests/test_semantic/test_decode_heads.py checks the configs in semantic/attached.
@pytest.mark.parametrize('name', [name for name in list_configs() if resolve_config(name).parent.name != 'attached'])
def test_builds(name):
    cfg = Config.fromfile(resolve_config(name))
    model = build_model(cfg)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if name in SEMANTIC:
        official, expected = SEMANTIC[name]
        assert parameters == expected
        from_official(official_weights(official), model)
        assert cfg.train_dataloader.batch_size == 2
        assert cfg.optim_wrapper.optimizer.type == 'AdamW'
        assert cfg.train_cfg.max_iters == 80_000
        assert set(learning_rate_drops(cfg)) == {60_000, 72_000}
    elif name in DETECTION:
        official, expected, millions = DETECTION[name]
        assert parameters == expected
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        assert round(trained / 1e6, 2) == millions
        if official:
            from_official(official_weights(official), model)
        assert cfg.train_dataloader.batch_size == 2
        assert cfg.optim_wrapper.optimizer.lr == 1e-4 and cfg.optim_wrapper.optimizer.weight_decay == 0.05
        assert cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == 0.25
        epochs = 3 if cfg.train_dataloader.dataset.type == 'RepeatDataset' else 1
        assert epochs == (3 if '3x' in name else 1) and cfg.train_cfg.max_epochs == 12
        assert cfg.param_scheduler[1].milestones == ([9, 11] if epochs == 3 else [8, 11])


ABLATIONS = {  # difference in parameters to knet-s3_r50_fpn_1x_coco
    'knet-s3-no-update': -3 * (2 * (256 * 512 + 512) + 2 * (256 * 256 + 256) + 4 * 512 + 256 * 256 + 256 + 512),
    'knet-s3-no-interaction': -3 * (4 * (256 * 256 + 256) + 512 + 2 * 256 * 2048 + 2048 + 256 + 512),
    'knet-s3-coord': 2 * 9 * 256, 'knet-s3-coord-pe': 2 * 9 * 256, 'knet-s3-no-position': 0,
    'knet-s3-n50': -50 * 256, 'knet-s3-n64': -36 * 256, 'knet-s3-n128': 28 * 256, 'knet-s3-n256': 156 * 256,
}


def test_ablations_differ_where_the_tables_say():
    def parameters(name):
        model = build_model(Config.fromfile(resolve_config(name)))
        return sum(parameter.numel() for parameter in model.parameters()), model

    base, _ = parameters('knet-s3_r50_fpn_1x_coco')
    for name, difference in ABLATIONS.items():
        assert parameters(f'{name}_r50_fpn_1x_coco')[0] == base + difference, name
    both = parameters('knet-s3-no-update-interaction_r50_fpn_1x_coco')[0]
    assert both == base + ABLATIONS['knet-s3-no-update'] + ABLATIONS['knet-s3-no-interaction']
    for stages in (1, 2, 4, 5):
        assert parameters(f'knet-s{stages}_r50_fpn_1x_coco')[1].panoptic_head.num_stages == stages
    fpns = {name: parameters(f'knet-s3-{name}_r50_fpn_1x_coco')[1].panoptic_head.kernel_head.localization_fpn
            for name in ('no-position', 'coord', 'coord-pe')}
    positions = {name: (fpn.coordinates, fpn.positional_encoding is not None) for name, fpn in fpns.items()}
    assert positions == {'no-position': (False, False), 'coord': (True, False), 'coord-pe': (True, True)}


def test_published_models_are_all_there():
    assert SEMANTIC.keys() | DETECTION.keys() <= set(list_configs())


@pytest.mark.parametrize('base', ['fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512',
                                  'deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024'])
def test_attach_by_an_added_line(tmp_path, base):
    (tmp_path / 'stock.py').write_text(f"_base_ = 'mmseg::{base}.py'\n")
    (tmp_path / 'attached.py').write_text(
        "_base_ = './stock.py'\nmodel = dict(decode_head=dict(_delete_=True, type='knet_plugin.IterativeDecodeHead', "
        'kernel_generate_head=_base_.model.decode_head))\n')
    stock, model = (build_model(Config.fromfile(tmp_path / f'{name}.py')) for name in ('stock', 'attached'))
    head = model.decode_head
    assert type(head).__module__.startswith('knet_plugin.')
    assert type(head.kernel_generate_head) is type(stock.decode_head)
    assert head.kernel_generate_head.state_dict().keys() == stock.decode_head.state_dict().keys()
    assert head.num_classes == stock.decode_head.num_classes
    others = [{key for key in each.state_dict() if not key.startswith('decode_head.')} for each in (model, stock)]
    assert others[0] == others[1]
