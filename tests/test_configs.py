"""Every config of the package is built; the published ones have the official release's weights to the last shape."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from golden import FOLDERS
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope, init_default_scope
from mmseg.registry import MODELS

from knet_plugin.checkpoint import from_official
from knet_plugin.cli import list_configs, resolve_config, resource_root

OFFICIAL = {
    'knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512': ('knet_s3_fcn_r50-d8_80k_adamw_ade20k', 62_810_508),
    'knet-s3_r50-d8_pspnet_8xb2-adamw-80k_ade20k-512x512': ('knet_s3_pspnet_r50-d8_80k_adamw_ade20k', 62_288_268),
    'knet-s3_r50-d8_deeplabv3_8xb2-adamw-80k_ade20k-512x512': ('knet_s3_deeplabv3_r50-d8_80k_adamw_ade20k', 81_425_804),
    'knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512': ('knet_s3_upernet_r50-d8_80k_adamw_ade20k', 45_660_300),
    'knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512': ('knet_s3_upernet_swin-t_80k_adamw_ade20k', 43_632_614),
    'knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-512x512': ('knet_s3_upernet_swin-l_80k_adamw_ade20k', 214_722_752),
    'knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-640x640': ('knet_s3_upernet_swin-l_80k_adamw_640x640_ade20k',
                                                             214_722_752),
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


@pytest.mark.parametrize('name', list_configs())
def test_builds(name):
    cfg = Config.fromfile(resolve_config(name))
    model = build_model(cfg)
    if name not in OFFICIAL:
        return
    keys, parameters = OFFICIAL[name]
    assert sum(p.numel() for p in model.parameters()) == parameters
    path = next(folder / f'official_keys/{keys}.json' for folder in FOLDERS
                if (folder / f'official_keys/{keys}.json').exists())
    shapes = json.loads(path.read_text())['state_dict']
    from_official({key: torch.empty(shape, device='meta') for key, shape in shapes.items()}, model)
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.train_cfg.max_iters == 80_000
    assert set(learning_rate_drops(cfg)) == {60_000, 72_000}


@pytest.mark.parametrize('path', sorted(Path(resource_root() / 'configs/semantic').glob('*.py')), ids=lambda p: p.stem)
def test_is_a_delta(path):
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 35


def test_published_models_are_all_there():
    assert OFFICIAL.keys() <= set(list_configs())


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
