"""Backbones and necks of the hosts under K-Net, as docs/backbones.md says."""

import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detection_cases import sample
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.models.backbones import timm_backbone
from mmseg.structures import SegDataSample
from torch import nn

from knet_plugin.cli import resolve_config

PAGE = Path(__file__).resolve().parents[1] / 'docs/backbones.md'
BASES = dict(panoptic='recipe/knet-s3_effnet-lite0_panoptic', semantic='recipe/knet-s3_effnet-lite0_semantic')
SIZE = (64, 64)


def plain(kind, **options):
    """A small plain ViT with its pyramid."""
    backbone = dict(type=kind, img_size=SIZE, embed_dims=24, num_layers=4, num_heads=2, mlp_ratio=2,
                    out_indices=(0, 1, 2, 3), **options)
    return backbone, dict(type='mmseg.Feature2Pyramid', embed_dim=24, norm_cfg=dict(type='GN', num_groups=8))


# Backbone, and channels or the neck in front of the FPN.
SMALL = {
    'ResNet': (dict(type='mmdet.ResNet', depth=18, base_channels=8), [8, 16, 32, 64]),
    'Swin': (dict(type='mmseg.SwinTransformer', embed_dims=8, depths=[1] * 4, num_heads=[1, 2, 4, 8]), [8, 16, 32, 64]),
    'Swin of mmdet': (dict(type='mmdet.SwinTransformer', embed_dims=8, depths=[1] * 4, num_heads=[1, 2, 4, 8]),
                      [8, 16, 32, 64]),
    'PVT': (dict(type='mmdet.PyramidVisionTransformerV2', embed_dims=8, num_layers=[1] * 4), [8, 16, 40, 64]),
    'MiT': (dict(type='mmseg.MixVisionTransformer', embed_dims=8, num_layers=[1] * 4), [8, 16, 32, 64]),
    'MobileNetV2': (dict(type='mmdet.MobileNetV2', widen_factor=0.25, out_indices=(1, 2, 4, 6)), [8, 8, 24, 80]),
    'MobileNetV2 of mmseg': (dict(type='mmseg.MobileNetV2', widen_factor=0.25, out_indices=(1, 2, 4, 6)),
                             [8, 8, 24, 80]),
    'EfficientNet-Lite0': (dict(type='knet_plugin.EfficientNetLite0'), [24, 40, 112, 320]),
    'ViT': plain('mmseg.VisionTransformer', patch_size=16),
    'ViT, patches of 14': plain('mmseg.VisionTransformer', patch_size=14),
    'BEiT': plain('mmseg.BEiT', patch_size=16),
    'MAE': plain('mmseg.MAE', patch_size=16),
}


def small_model(task, backbone, channels):
    """The small K-Net for own data with another backbone and 16 channels."""
    cfg = Config.fromfile(resolve_config(BASES[task])).model
    cfg.backbone = backbone
    fpn = dict(type='FPN', in_channels=channels, out_channels=16, num_outs=4)
    cfg.neck = [channels, dict(fpn, in_channels=[24] * 4)] if isinstance(channels, dict) else fpn
    parts = dict(channels=16, norm_cfg=dict(type='GN', num_groups=4))
    if task == 'semantic':
        cfg.data_preprocessor.size = SIZE
        cfg.decode_head.kernel_generate_head.update(parts, in_channels=[16] * 4)
        cfg.decode_head.num_stages = 1
    else:
        cfg.panoptic_head.num_stages = 1
        cfg.panoptic_head.kernel_head.update(parts, num_kernels=5)
    scope = 'mmseg' if task == 'semantic' else 'mmdet'
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg)


def batch(task):
    """Two images with a bright square, and its annotation."""
    images = [torch.full((3, *SIZE), 50, dtype=torch.uint8) for _ in range(2)]
    mask = torch.zeros(1, *SIZE, dtype=torch.long)
    mask[:, 8:40, 16:48] = 1
    for image in images:
        image[:, mask[0] == 1] = 200
    if task == 'semantic':
        samples = [SegDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE), gt_sem_seg=PixelData(data=mask))
                   for _ in images]
    else:
        samples = [sample(mask, torch.zeros(1, dtype=torch.long), SIZE, 1 - mask[0]) for _ in images]
    return dict(inputs=images, data_samples=samples)


def check(task, backbone, channels):
    """A loss with gradients everywhere, and a prediction of the image's size."""
    model = small_model(task, backbone, channels).train()
    data = model.data_preprocessor(batch(task), True)
    loss, _ = model.parse_losses(model.loss(data['inputs'], data['data_samples']))
    loss.backward()
    assert loss.isfinite()
    for part in (model.backbone, model.neck):
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())
    with torch.no_grad():
        results = model.eval().test_step(batch(task))
    maps = results[0].pred_sem_seg.data if task == 'semantic' else results[0].pred_panoptic_seg.sem_seg
    assert maps.shape[-2:] == SIZE


@pytest.mark.parametrize('task', BASES)
@pytest.mark.parametrize('name', SMALL)
def test_a_step_with_each_backbone(name, task):
    check(task, *SMALL[name])


@pytest.mark.parametrize('task', BASES)
def test_a_step_with_a_backbone_of_timm(task, monkeypatch):
    """timm itself is replaced."""
    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv2d(3, channels, 1) for channels in (4, 8, 12, 16)])

        def forward(self, images):
            return [conv(nn.functional.avg_pool2d(images, 4 * 2**level)) for level, conv in enumerate(self.convs)]

    asked = []
    monkeypatch.setattr(timm_backbone, 'timm', SimpleNamespace(create_model=lambda **given: [asked.append(given),
                                                                                            Features()][1]))
    row, _ = rows()['timm']
    check(task, dict(row, pretrained=False), [4, 8, 12, 16])
    assert asked[0]['out_indices'] == (1, 2, 3, 4) and asked[0]['features_only']


def rows():
    """Backbone and channels of each row of the page's table."""
    row = re.compile(r'^\| ([^|]+) \| `(dict\(type=.*?\))`.*? \| `(\[.*?\])` \|', re.MULTILINE)
    found = row.findall(PAGE.read_text())
    return {name: (eval(backbone), eval(channels)) for name, backbone, channels in found}


@pytest.mark.parametrize('name', rows())
def test_the_page_names_the_channels(name):
    backbone, channels = rows()[name]
    host = backbone['type'].partition('.')[0]
    if not find_spec(host) or name == 'timm' and timm_backbone.timm is None:
        pytest.skip(f'{name} needs a package that is not installed')
    model = MODELS.build(backbone)
    model.eval()  # some return None
    with torch.no_grad():
        maps = model(torch.zeros(1, 3, *SIZE))
    assert [each.shape[1] for each in maps] == channels
    assert [each.shape[-1] for each in maps] == [16, 8, 4, 2]


def test_the_page_names_every_kind():
    assert {'ResNet', 'ConvNeXt', 'Swin', 'MobileNetV2', 'EfficientNet-Lite0', 'timm'} <= rows().keys()
