"""Localisation FPN: one high-resolution map from the pyramid, for telling where things are (Section 3.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.utils import generate_coordinate
from mmengine.model import BaseModule, ModuleList, initialize
from torch import Tensor, nn

from knet_plugin.core.mask_ops import resize
from knet_plugin.core.activation_checkpointing import checkpointed
from knet_plugin.detection.resized_conv import resize_and_convolve
from knet_plugin.registry import MODELS

__all__ = ['LocalizationFPN']

NUM_LEVELS = 4  # P2 .. P5, strides 4 .. 32


@MODELS.register_module()
class LocalizationFPN(BaseModule):
    """The semantic branch of Panoptic FPN, told about positions (Table 4b of the paper).

    Every level of P2 .. P5 is brought to the size of ``output_level`` by 3 x 3 conv - norm - ReLU, each followed by a
    x2 bilinear upsampling as long as the level is too small; levels that are too large start with a stride. The fused
    map passes through one 1 x 1 conv - norm - ReLU per output: the localisation features, and ``num_aux_convs`` others
    (one in the published models, the semantic features).

    Args:
        in_channels: Channels of every pyramid level.
        feat_channels: Channels inside.
        out_channels: Channels of every output.
        output_level: Level whose size the outputs have: 1 is stride 8, 0 is stride 4.
        positional_encoding: Config of an encoding that is added to one level, called with a (B, H, W) mask of ignored
            positions; it must have ``in_channels`` channels. None: not added.
        coordinates: Whether x and y, each running from -1 to 1, are appended to that level as two channels.
        position_level: The level that is told about positions.
        fuse: ``'sum'`` or ``'concat'`` of the levels.
        with_pred: Whether the fused map passes through the 1 x 1 convolutions. If not, it is the only output.
        num_aux_convs: Outputs besides the first.
        norm_cfg: Norm after every convolution. None: a bias instead.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: If ``output_level``, ``position_level`` or ``fuse`` is none of the above, if ``num_aux_convs`` asks
            for outputs that ``with_pred=False`` does not make, if the fused map is returned in ``feat_channels`` that
            are not ``out_channels``, or if the encoding does not fit ``in_channels``.
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
            with_pred: bool = True,
            num_aux_convs: int = 1,
            norm_cfg: dict | None = dict(type='GN', num_groups=32),  # noqa: B006
            init_cfg: dict | None = dict(type='Normal', layer='Conv2d', std=0.01)) -> None:  # noqa: B006
        super().__init__(init_cfg)
        if output_level not in (0, 1):
            raise ValueError(f'output_level must be 0 (stride 4) or 1 (stride 8), got output_level={output_level}')
        if position_level not in range(NUM_LEVELS):
            raise ValueError(f'position_level must be 0 .. {NUM_LEVELS - 1}, got position_level={position_level}')
        if fuse not in ('sum', 'concat'):
            raise ValueError(f"fuse must be 'sum' or 'concat', got fuse={fuse!r}")
        if not with_pred and num_aux_convs:
            raise ValueError(f'with_pred=False has a single output, got num_aux_convs={num_aux_convs}')
        fused_channels = feat_channels * (NUM_LEVELS if fuse == 'concat' else 1)
        if not with_pred and fused_channels != out_channels:
            raise ValueError(f'with_pred=False yields {fused_channels} channels, got out_channels={out_channels}')
        if positional_encoding and 2 * positional_encoding.get('num_feats', in_channels / 2) != in_channels:
            raise ValueError(f'positional_encoding must have num_feats={in_channels // 2} for in_channels='
                             f'{in_channels}, got num_feats={positional_encoding["num_feats"]}')
        self.output_level = output_level
        self.coordinates = coordinates
        self.position_level = position_level
        self.fuse = fuse
        self.positional_encoding = None if positional_encoding is None else MODELS.build(positional_encoding)

        def conv(channels: int, out: int, size: int, stride: int = 1) -> ConvModule:
            # What is computed again in the backward pass, the 3 x 3 ones, must leave its input as it is.
            return ConvModule(channels, out, size, stride=stride, padding=size // 2, norm_cfg=norm_cfg,
                              inplace=size == 1)

        self.convs_all_levels = ModuleList()
        for level in range(NUM_LEVELS):
            channels = in_channels + (2 if coordinates and level == position_level else 0)
            stride = 2**max(output_level - level, 0)
            convs = nn.Sequential()
            for i in range(max(level, 1)):
                convs.add_module(f'conv{i}', conv(channels if i == 0 else feat_channels, feat_channels, 3,
                                                  stride if i == 0 else 1))
            self.convs_all_levels.append(convs)
        self.conv_pred = conv(fused_channels, out_channels, 1) if with_pred else None
        self.aux_convs = ModuleList([conv(fused_channels, out_channels, 1) for _ in range(num_aux_convs)])

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says."""
        super().init_weights()
        if self.init_cfg:  # once more: mmcv's ConvModules have just initialised themselves
            initialize(self, self.init_cfg)

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Fuse the levels.

        Args:
            feats: P2 .. P5, each (B, in_channels, H_i, W_i), every one half as large (rounded up) as the one before.

        Returns:
            The localisation features and ``num_aux_convs`` others, each (B, out_channels, H, W).

        Raises:
            ValueError: If there are not four levels.
        """
        if len(feats) != NUM_LEVELS:
            raise ValueError(f'the localisation FPN reads {NUM_LEVELS} pyramid levels (strides 4 to 32), got '
                             f'{len(feats)}: set neck.num_outs={NUM_LEVELS}')
        sizes = [feat.shape[-2:] for feat in feats]
        levels = []
        for level, (feat, convs) in enumerate(zip(feats, self.convs_all_levels, strict=True)):
            if level == self.position_level:
                feat = self._add_position(feat)
            # A convolution's output is what is kept for the backward pass; norm, ReLU and resize are made again.
            feat = _channels_last(convs[0].conv(feat))
            for i, conv in enumerate(convs[1:], start=1):
                size = sizes[max(level - i, self.output_level)]
                feat = checkpointed(_advance, feat, convs[i - 1], size, conv.conv, parts=convs)
            levels.append(checkpointed(_advance, feat, convs[-1], sizes[self.output_level], None, parts=convs))
        fused = torch.cat(levels, dim=1) if self.fuse == 'concat' else _sum(levels)
        if self.conv_pred is None:
            return [fused]
        return [self.conv_pred(fused), *(conv(fused) for conv in self.aux_convs)]

    def _add_position(self, feat: Tensor) -> Tensor:
        """Tell the level where its pixels are: (B, C, H, W) to (B, C or C + 2, H, W)."""
        if self.positional_encoding is not None:
            ignored = feat.new_zeros((1, *feat.shape[-2:]), dtype=torch.bool)  # padding is not told apart
            feat = feat + self.positional_encoding(ignored).to(feat.dtype)
        if self.coordinates:
            coordinates = generate_coordinate((len(feat), 2, *feat.shape[-2:]), feat.device)
            feat = torch.cat([feat, coordinates.to(feat.dtype)], dim=1)
        return feat


def _advance(feat: Tensor, done: ConvModule, size: torch.Size, conv: nn.Conv2d | None) -> Tensor:
    """From the output of one convolution, which is ``done``'s, to that of the next one, at another size."""
    feat = done.norm(feat) if done.with_norm else feat
    # Without gradients nobody else holds what a convolution or norm has just made.
    feat = done.activate(feat) if torch.is_grad_enabled() else F.relu(feat, inplace=True)
    return resize(feat, size) if conv is None else resize_and_convolve(conv, feat, size)


def _sum(levels: list[Tensor]) -> Tensor:
    """Sum of maps of one size; without gradients, in the memory of the first."""
    fused = levels[0]
    for level in levels[1:]:
        fused = fused + level if torch.is_grad_enabled() else fused.add_(level)
    return fused


def _channels_last(feat: Tensor) -> Tensor:
    """The memory that ``resize_and_convolve`` yields, and in which norms, ReLUs and resizes are faster on the CPU.

    After the first convolution, whose input may be four times as large. Where gradients are kept, nothing changes.
    """
    if torch.is_grad_enabled() or not feat.is_cpu:
        return feat
    return feat.contiguous(memory_format=torch.channels_last)
