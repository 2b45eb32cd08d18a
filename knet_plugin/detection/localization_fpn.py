"""Localisation FPN: fuses the pyramid into maps of one resolution that know their positions (Section 3.2)."""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmdet.models.utils import generate_coordinate
from mmengine.model import BaseModule, ModuleList, initialize
from torch import Tensor, nn

from knet_plugin.core.activation_checkpointing import checkpointed
from knet_plugin.core.feature_map import resize
from knet_plugin.registry import MODELS

__all__ = ['LocalizationFPN', 'add_positions']

NUM_LEVELS = 4  # P2 .. P5, strides 4 .. 32


@MODELS.register_module()
class LocalizationFPN(BaseModule):
    """The semantic branch of Panoptic FPN with positional information (Table 4b of the paper).

    3 x 3 conv - norm - ReLU blocks bring each level of P2 .. P5 to the size of ``output_level``: the first block of a
    larger level has a stride, and x2 bilinear upsampling follows each block of a smaller one. Each output is a
    1 x 1 conv - norm - ReLU of the fused levels.

    Args:
        in_channels: Channels of every pyramid level.
        feat_channels: Channels inside.
        out_channels: Channels of every output.
        output_level: Level whose size the outputs have: 1 is stride 8, 0 is stride 4.
        positional_encoding: Config of an encoding of ``in_channels`` channels that is added to ``position_level``; it
            is called with a (B, H, W) mask of ignored positions. None: not added.
        coordinates: Whether x and y, each from -1 to 1, are appended to ``position_level`` as two channels.
        position_level: The level that gets positions.
        fuse: ``'sum'`` or ``'concat'`` of the levels.
        num_outputs: Number of outputs; the kernel head reads two, localisation and semantic features. 0: the fused
            levels are the only output.
        norm_cfg: Norm after every convolution. None: a bias instead.
    """

    def __init__(
            self,
            in_channels: int = 256,
            feat_channels: int = 256,
            out_channels: int = 256,
            output_level: int = 1,
            positional_encoding: dict | None = dict(  # noqa: B006, never changed
                type='mmdet.SinePositionalEncoding', num_feats=128, normalize=True),
            coordinates: bool = False,
            position_level: int = NUM_LEVELS - 1,
            fuse: str = 'sum',
            num_outputs: int = 2,
            norm_cfg: dict | None = dict(type='GN', num_groups=32)) -> None:  # noqa: B006
        super().__init__(dict(type='Normal', layer='Conv2d', std=0.01))
        if output_level not in (0, 1):
            raise ValueError(f'output_level must be 0 (stride 4) or 1 (stride 8), got output_level={output_level}')
        if fuse not in ('sum', 'concat'):
            raise ValueError(f"fuse must be 'sum' or 'concat', got fuse={fuse!r}")
        fused_channels = feat_channels * (NUM_LEVELS if fuse == 'concat' else 1)
        self.output_level = output_level
        self.coordinates = coordinates
        self.position_level = position_level
        self.fuse = fuse
        self.positional_encoding = None if positional_encoding is None else MODELS.build(positional_encoding)

        def conv(channels: int, out: int, size: int, stride: int = 1) -> ConvModule:
            return ConvModule(channels, out, size, stride=stride, padding=size // 2, norm_cfg=norm_cfg)

        self.convs_all_levels = ModuleList()
        for level in range(NUM_LEVELS):
            channels = in_channels + (2 if coordinates and level == position_level else 0)
            convs = nn.Sequential()
            convs.add_module('conv0', conv(channels, feat_channels, 3, stride=2**max(output_level - level, 0)))
            for i in range(1, level):
                convs.add_module(f'conv{i}', conv(feat_channels, feat_channels, 3))
            self.convs_all_levels.append(convs)
        self.conv_pred = conv(fused_channels, out_channels, 1) if num_outputs else None
        self.aux_convs = ModuleList([conv(fused_channels, out_channels, 1) for _ in range(num_outputs - 1)])

    def init_weights(self) -> None:
        """Initialise all convolutions with standard deviation 0.01."""
        super().init_weights()
        initialize(self, self.init_cfg)  # again, as mmcv's ConvModules have just initialised themselves

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Fuse P2 .. P5, each (B, in_channels, H_i, W_i), to outputs of (B, out_channels, H, W)."""
        if len(feats) != NUM_LEVELS:
            raise ValueError(f'the localisation FPN reads {NUM_LEVELS} pyramid levels (strides 4 to 32), got '
                             f'{len(feats)}: set neck.num_outs={NUM_LEVELS}')
        sizes = [feat.shape[-2:] for feat in feats]
        levels = []
        for level, (feat, convs) in enumerate(zip(feats, self.convs_all_levels, strict=True)):
            if level == self.position_level:
                feat = add_positions(feat, self.positional_encoding, self.coordinates)
            feat = convs[0].conv(feat)
            for i, block in enumerate(convs, start=1):
                size, following = sizes[max(level - i, self.output_level)], [each.conv for each in convs[i:i + 1]]
                feat = checkpointed(_finish_block, feat, block, size, *following, parts=convs)
            levels.append(feat)  # B, feat_channels, H, W
        fused = torch.cat(levels, dim=1) if self.fuse == 'concat' else sum(levels[1:], levels[0])
        if self.conv_pred is None:
            return [fused]
        return [self.conv_pred(fused), *(conv(fused) for conv in self.aux_convs)]


def add_positions(feat: Tensor, encoding: nn.Module | None, coordinates: bool) -> Tensor:
    """Add an encoding of positions to (B, C, H, W) features, and append x and y: (B, C or C + 2, H, W)."""
    if encoding is not None:
        ignored = feat.new_zeros((1, *feat.shape[-2:]), dtype=torch.bool)  # padding counts as image
        feat = feat + encoding(ignored).to(feat.dtype)
    if coordinates:
        xy = generate_coordinate((feat.shape[0], 2, *feat.shape[-2:]), feat.device)
        feat = torch.cat([feat, xy.to(feat.dtype)], dim=1)
    return feat


def _finish_block(feat: Tensor, block: ConvModule, size: torch.Size, *following: nn.Conv2d) -> Tensor:
    """Norm, ReLU and resize of a block, and the following convolution, whose output is kept for the backward pass."""
    feat = resize(block.activate(block.norm(feat) if block.with_norm else feat.clone()), size)  # activates in place
    return following[0](feat) if following else feat
