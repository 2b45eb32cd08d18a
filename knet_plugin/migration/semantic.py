"""Segmentors: mmseg's own K-Net and the official release's, which have nearly the same names."""

from typing import Any

from knet_plugin.migration.options import Options, Report, bare_type
from knet_plugin.migration.update_head import stages_config

__all__ = ['decode_head_config', 'is_iterative_head', 'segmentor_config']

# The release's kernel generators: mmseg's heads, but for what their forward returns.
GENERATORS = {'FCNKernelHead': 'FCNHead', 'PSPKernelHead': 'PSPHead', 'ASPPKernelHead': 'ASPPHead',
              'UPerKernelHead': 'UPerHead'}
# The release's Swin is its authors' own; mmseg's differs in these names.
SWIN_OPTIONS = {'embed_dim': 'embed_dims', 'ape': 'use_abs_pos_embed', 'use_checkpoint': 'with_cp'}


def is_iterative_head(cfg: Any) -> bool:
    """Whether a decode head is another K-Net's ``IterativeDecodeHead``; ours are known by their scope."""
    given = cfg.get('type', '') if isinstance(cfg, dict) else ''
    return bare_type(given) == 'IterativeDecodeHead' and not str(given).startswith('knet_plugin.')


def decode_head_config(official: Any, report: Report, path: str = 'decode_head') -> dict[str, Any]:
    """Our config of an ``IterativeDecodeHead``.

    Args:
        official: Its config, mmseg's or the official one.
        report: Where to note what is dropped or refused.
        path: Where the config is, for messages.
    """
    with Options(official, path, report) as options:
        options.only_type('IterativeDecodeHead')
        num_stages = options.require('num_stages')
        generator = dict(options.require('kernel_generate_head'))
        scope, dot, name = str(generator['type']).rpartition('.')
        generator['type'] = scope + dot + GENERATORS.get(name, name)
        if name.endswith('KernelHead') and name not in GENERATORS:
            report.refuse(options.at('kernel_generate_head.type'), name, 'no decode head of mmseg is known for it')
        return dict(
            type='knet_plugin.IterativeDecodeHead',
            num_stages=num_stages,
            kernel_generate_head=generator,
            kernel_update_head=stages_config(options.require('kernel_update_head'), num_stages, 'SoftmaxMask', report,
                                             options.at('kernel_update_head')),
            **options.some('init_cfg'))


def segmentor_config(official: dict[str, Any], report: Report, path: str = 'model') -> dict[str, Any]:
    """A segmentor with every ``IterativeDecodeHead`` in it as ours. All else is mmseg's and stays.

    Args:
        official: The segmentor's config.
        report: Where to note what is dropped or refused.
        path: Where the config is, for messages.
    """
    model = dict(official)
    for name in ('decode_head', 'auxiliary_head'):
        heads = model.get(name)
        if is_iterative_head(heads):
            model[name] = decode_head_config(heads, report, f'{path}.{name}')
        elif isinstance(heads, list | tuple):
            model[name] = [decode_head_config(head, report, f'{path}.{name}[{i}]') if is_iterative_head(head) else head
                           for i, head in enumerate(heads)]
    backbone = model.get('backbone')
    if isinstance(backbone, dict) and bare_type(backbone.get('type', '')) == 'SwinTransformer' \
            and backbone.keys() & SWIN_OPTIONS.keys():
        model['backbone'] = {SWIN_OPTIONS.get(key, key): value for key, value in backbone.items()}
        if model.get('pretrained'):
            report.by_hand(f'{path}.pretrained', model['pretrained'], 'kept; the names in it must be mmseg\'s (its '
                           'tools/model_converters/swin2mmseg.py converts the Swin authors\')')
    return model
