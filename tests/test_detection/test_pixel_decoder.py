import pytest
import torch
from detection_cases import sample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from test_kernel_iter_head import head, loss_of, samples

from knet_plugin.cli import resolve_config
from knet_plugin.detection import PixelDecoderAdapter
from knet_plugin.registry import MODELS

NORM = dict(type='GN', num_groups=2)
CHANNELS = (4, 6, 8, 10)  # of the backbone's maps
POSITIONS = dict(type='mmdet.SinePositionalEncoding', num_feats=4, normalize=True)


def deformable(levels=4):
    attention = dict(embed_dims=8, num_heads=2, num_levels=3, num_points=2, batch_first=True)
    layer = dict(self_attn_cfg=attention, ffn_cfg=dict(embed_dims=8, feedforward_channels=16))
    return dict(type='mmdet.MSDeformAttnPixelDecoder', in_channels=CHANNELS[-levels:], strides=(4, 8, 16, 32)[-levels:],
                feat_channels=8, out_channels=8, norm_cfg=NORM, encoder=dict(num_layers=2, layer_cfg=layer),
                positional_encoding=dict(num_feats=4, normalize=True))


def convolutional():
    return dict(type='mmdet.PixelDecoder', in_channels=CHANNELS, feat_channels=8, out_channels=8, norm_cfg=NORM)


def transformer():
    layer = dict(self_attn_cfg=dict(embed_dims=8, num_heads=2, batch_first=True),
                 ffn_cfg=dict(embed_dims=8, feedforward_channels=16))
    return dict(convolutional(), type='mmdet.TransformerEncoderPixelDecoder',
                encoder=dict(num_layers=1, layer_cfg=layer), positional_encoding=dict(num_feats=4, normalize=True))


def adapter_config(decoder, **options):
    return dict(dict(type='knet_plugin.PixelDecoderAdapter', decoder=decoder, channels=8, positional_encoding=POSITIONS,
                     norm_cfg=NORM), **options)


def maps(batch=3, levels=4, height=16, width=24):
    torch.manual_seed(1)
    sizes = [(height // 2**i, width // 2**i) for i in range(4)]
    return [torch.randn(batch, channels, *size) for channels, size in zip(CHANNELS, sizes, strict=True)][-levels:]


@pytest.mark.parametrize('decoder', [deformable, convolutional, transformer])
@pytest.mark.parametrize('options', [{}, dict(positional_encoding=None), dict(coordinates=True), dict(norm_cfg=None)])
def test_any_decoder_yields_two_maps_of_the_largest_size(decoder, options):
    adapter = MODELS.build(adapter_config(decoder(), **options))
    adapter.init_weights()
    loc, seg = adapter(maps())
    assert loc.shape == seg.shape == (3, 8, 16, 24)
    assert not torch.equal(loc, seg)
    (loc.square().sum() + seg.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in adapter.parameters())


def test_stride_8_without_the_largest_map():
    loc, seg = MODELS.build(adapter_config(deformable(levels=3)))(maps(levels=3))
    assert loc.shape == seg.shape == (3, 8, 8, 12)


def test_sizes_that_are_no_halves():
    feats = [torch.randn(2, channels, -(-13 // 2**i), -(-17 // 2**i)) for i, channels in enumerate(CHANNELS)]
    assert MODELS.build(adapter_config(deformable()))(feats)[0].shape == (2, 8, 13, 17)


def test_a_batch_gives_the_features_of_its_images():
    adapter = MODELS.build(adapter_config(deformable())).eval()
    whole, single = adapter(maps())[0], adapter([level[1:2] for level in maps()])[0]
    torch.testing.assert_close(whole[1:2], single)


@pytest.mark.parametrize('options, told', [
    (dict(positional_encoding=None), False), ({}, True), (dict(positional_encoding=None, coordinates=True), True)])
def test_positions_are_what_tells_pixels_apart(options, told):
    """Without them, constant maps of the backbone stay constant, away from the zero padding."""
    torch.manual_seed(0)
    adapter = MODELS.build(adapter_config(convolutional(), **options))
    feats = [torch.ones(1, channels, 128 // 2**i, 128 // 2**i) for i, channels in enumerate(CHANNELS)]
    centre = adapter(feats)[0][0, :, 62:66, 62:66].flatten(1)
    assert (centre.std(dim=1).max() > 1e-5).item() == told


@pytest.mark.parametrize('with_cp', [False, True])
def test_kernel_iter_head_trains_on_it(with_cp):
    kernel_head = dict(num_kernels=4, channels=8, norm_cfg=NORM, localization_fpn=adapter_config(deformable()))
    built = head(kernel_head=kernel_head, mask_upsample=1, with_cp=with_cp)
    loss_of(built.loss(maps(), samples())).backward()
    assert all(parameter.grad is not None for parameter in built.parameters())
    assert built.predict(maps(), [])[1].shape == (3, 6, 16, 24)


STRIDE_8 = dict(  # docs/recipe.md
    backbone=dict(out_indices=(1, 2, 3)),
    panoptic_head=dict(
        kernel_head=dict(localization_fpn=dict(decoder=dict(in_channels=[512, 1024, 2048], strides=[8, 16, 32]))),
        mask_upsample=2))


@pytest.mark.parametrize('stride, changes', [(4, {}), (8, STRIDE_8)])
def test_config_trains_and_predicts(stride, changes):
    cfg = Config.fromfile(resolve_config('knet-s3-msdeformattn_r50_panoptic'))
    cfg.merge_from_dict(dict(model=changes))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    fpn = model.panoptic_head.kernel_head.localization_fpn
    assert isinstance(fpn, PixelDecoderAdapter) and not model.with_neck and len(fpn.decoder.encoder.layers) == 6
    images = torch.randn(1, 3, 64, 96)
    masks = torch.zeros(1, 64, 96)
    masks[0, 8:40, 16:50] = 1
    data = sample(masks, torch.tensor([0]), (64, 96), torch.ones(64, 96).long())
    losses = model.loss(images, [data])
    assert all(value.isfinite().all() for value in losses.values())
    loss_of(losses).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    model.eval()
    with torch.no_grad():
        result, = model.predict(images, [data])
        proposals, _ = model.panoptic_head.stages(model.extract_feat(images))
    assert proposals.features.shape == (1, 256, 64 // stride, 96 // stride)
    assert result.pred_panoptic_seg.sem_seg.shape == result.pred_sem_seg.sem_seg.shape == (1, 64, 96)
