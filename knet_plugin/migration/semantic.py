"""Segmentors: mmseg's own K-Net, and the official release's, whose options nearly match."""

from typing import Any

from knet_plugin.migration.options import Options, Report, bare_type
from knet_plugin.migration.update_head import stages_config

__all__ = ['decode_head_config', 'is_iterative_head', 'segmentor_config']

# The release's kernel generators are mmseg's heads under other names.
GENERATORS = {'FCNKernelHead': 'FCNHead', 'PSPKernelHead': 'PSPHead', 'ASPPKernelHead': 'ASPPHead',
              'UPerKernelHead': 'UPerHead'}
# The release uses the Swin Transformer of its authors; mmseg's names these options differently.
SWIN_OPTIONS = {'embed_dim': 'embed_dims', 'ape': 'use_abs_pos_embed', 'use_checkpoint': 'with_cp'}


def is_iterative_head(cfg: Any) -> bool:
    """Whether a decode head is another K-Net's ``IterativeDecodeHead``; ours has our scope."""
    given = cfg.get('type') if isinstance(cfg, dict) else None
    return bare_type(given) == 'IterativeDecodeHead' and not str(given).startswith('knet_plugin.')


def decode_head_config(official: Any, report: Report, path: str = 'decode_head') -> dict[str, Any]:
    """Our config of mmseg's or the official ``IterativeDecodeHead``."""
    with Options(official, path, report, 'IterativeDecodeHead') as options:
        num_stages, generator = options.require('num_stages'), dict(options.require('kernel_generate_head'))
        scope, dot, name = str(generator['type']).rpartition('.')
        return dict(
            type='knet_plugin.IterativeDecodeHead', num_stages=num_stages,
            kernel_generate_head=generator | dict(type=scope + dot + GENERATORS.get(name, name)),
            kernel_update_head=stages_config(options.require('kernel_update_head'), num_stages, 'SoftmaxMask', report,
                                             options.at('kernel_update_head')),
            **options.some('init_cfg'))


def segmentor_config(official: dict[str, Any], report: Report, path: str = 'model') -> dict[str, Any]:
    """A segmentor in which every other ``IterativeDecodeHead`` is replaced by ours."""
    heads = official['decode_head']
    if isinstance(heads, list | tuple):
        ours: Any = [decode_head_config(head, report, f'{path}.decode_head[{i}]') if is_iterative_head(head) else head
                     for i, head in enumerate(heads)]
    else:
        ours = decode_head_config(heads, report, f'{path}.decode_head')
    backbone = official['backbone']
    if bare_type(backbone['type']) == 'SwinTransformer' and backbone.keys() & SWIN_OPTIONS.keys():
        backbone = {SWIN_OPTIONS.get(key, key): value for key, value in backbone.items()}
        if official.get('pretrained'):
            report.by_hand(f'{path}.pretrained', official['pretrained'], 'kept, but the weights must have mmseg\'s '
                           'names: convert them with mmseg\'s tools/model_converters/swin2mmseg.py')
    return official | dict(backbone=backbone, decode_head=ours)
