"""Every config of the package is built; the published ones have the official release's weights to the last shape."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from golden import FOLDERS
from mmengine.config import Config
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope, init_default_scope

from knet_plugin.checkpoint import from_official
from knet_plugin.cli import list_configs, resolve_config, resource_root

# Config -> the official release's name of it, its parameters, and those that are trained (the paper counts these).
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
    # Swin computes numbers from tensors when it is built, which the meta device cannot do.
    device = nullcontext() if cfg.model.backbone.type == 'SwinTransformer' else torch.device('meta')
    with DefaultScope.overwrite_default_scope(scope), device:
        return MODELS.build(cfg.model)


def learning_rate_drops(cfg):
    """Iterations after which the rate is a tenth, found by running the schedule."""
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


# Those that tools/attach.py made are what knet_plugin.attach makes, which test_semantic/test_decode_heads.py checks.
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


ABLATIONS = {  # settings of the paper's tables -> parameters of what differs from knet-s3_r50_fpn_1x_coco
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


@pytest.mark.parametrize('path', [path for folder in ('semantic', 'instance', 'panoptic', 'ablation')
                                  for path in sorted((resource_root() / 'configs' / folder).glob('*.py'))],
                         ids=lambda path: path.stem)
def test_is_a_delta(path):
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 35


def test_published_models_are_all_there():
    assert SEMANTIC.keys() | DETECTION.keys() <= set(list_configs())


def test_one_added_line_attaches_knet(tmp_path):
    """README's one line, on three stock configs of mmseg."""
    for base in ('fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py',
                 'deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py',
                 'dnlnet/dnl_r50-d8_4xb2-40k_cityscapes-512x1024.py'):
        path = tmp_path / 'attached.py'
        path.write_text(f"_base_ = 'mmseg::{base}'\n{ATTACH}\n")
        cfg = Config.fromfile(path)
        stock = Config.fromfile(_stock_path(tmp_path, base))
        model, plain = build_model(cfg), build_model(stock)
        head = model.decode_head
        assert type(head).__module__.startswith('knet_plugin.')
        assert type(head.kernel_generate_head) is type(plain.decode_head)
        assert head.kernel_generate_head.state_dict().keys() == plain.decode_head.state_dict().keys()
        assert head.num_classes == plain.decode_head.num_classes
        others = {key for key in model.state_dict() if not key.startswith('decode_head.')}
        assert others == {key for key in plain.state_dict() if not key.startswith('decode_head.')}


ATTACH = ("model = dict(decode_head=dict(_delete_=True, type='knet_plugin.IterativeDecodeHead', "
          'kernel_generate_head=_base_.model.decode_head))')


def _stock_path(folder, base):
    path = folder / 'stock.py'
    path.write_text(f"_base_ = 'mmseg::{base}'\n")
    return path


def test_the_readme_shows_that_line():
    readme = Path(__file__).resolve().parents[1] / 'README.md'
    assert ' '.join(ATTACH.split()) in ' '.join(readme.read_text().split())
