"""A pixel decoder of mmdet in place of neck and localisation FPN."""

import inspect
from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor

from knet_plugin.detection.localization_fpn import add_positions
from knet_plugin.registry import MODELS

__all__ = ['PixelDecoderAdapter']


@MODELS.register_module()
class PixelDecoderAdapter(BaseModule):
    """Localisation and semantic features from the pixel decoder of MaskFormer or Mask2Former (arXiv 2112.01527).

    ::

        x = decoder(C2 .. C5) + P;  loc, seg = two 1 x 1 conv - norm - ReLU of x

    The decoder reads the maps of the backbone, so the model has no neck. The outputs have the size of the largest map:
    stride 4, or 8 if the backbone leaves out C2. K-Net needs features that know their positions (Table 4b of the
    paper). The encoder inside ``MSDeformAttnPixelDecoder`` does not provide them: it uses positions to choose where to
    look, but does not add them to the values.

    Args:
        decoder: Config of the decoder, whose ``out_channels`` are C.
        channels: Channels C of the outputs.
        positional_encoding: Config of the encoding P of C channels, as in ``LocalizationFPN``. None: not added.
        coordinates: Whether x and y, each from -1 to 1, are appended to the decoder's output as two channels.
        norm_cfg: Norm of the 1 x 1 convolutions. None: a bias instead.
    """

    def __init__(
            self,
            decoder: dict,
            channels: int = 256,
            positional_encoding: dict | None = dict(  # noqa: B006, never changed
                type='mmdet.SinePositionalEncoding', num_feats=128, normalize=True),
            coordinates: bool = False,
            norm_cfg: dict | None = dict(type='GN', num_groups=32)) -> None:  # noqa: B006
        super().__init__()
        self.decoder = MODELS.build(ConfigDict(decoder))  # mmdet reads nested settings as attributes
        self.takes_metas = 'batch_img_metas' in inspect.signature(self.decoder.forward).parameters
        self.positional_encoding = None if positional_encoding is None else MODELS.build(positional_encoding)
        self.coordinates = coordinates
        in_channels = channels + 2 * coordinates
        self.loc_conv = ConvModule(in_channels, channels, 1, norm_cfg=norm_cfg)
        self.seg_conv = ConvModule(in_channels, channels, 1, norm_cfg=norm_cfg)

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode maps of the backbone, (B, C_i, H_i, W_i), to two maps (B, C, H_0, W_0)."""
        arguments = [self._metas(feats)] if self.takes_metas else []
        decoded, _ = self.decoder(feats, *arguments)
        decoded = add_positions(decoded, self.positional_encoding, self.coordinates)
        return self.loc_conv(decoded), self.seg_conv(decoded)

    @staticmethod
    def _metas(feats: Sequence[Tensor]) -> list[dict]:
        """Sizes from which MaskFormer's decoders tell padding; here, as in the localisation FPN, it counts as image."""
        size = tuple(feats[0].shape[-2:])
        return [dict(batch_input_shape=size, img_shape=size)] * len(feats[0])
