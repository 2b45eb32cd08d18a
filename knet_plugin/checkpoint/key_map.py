"""Names of the weights in the official release (and in mmseg's K-Net) as a table.

Only our own parts have other names; backbones, necks and stock decode heads keep those of their hosts.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from knet_plugin.checkpoint.mismatch import mismatches
from knet_plugin.compat import require
from knet_plugin.core import KernelUpdateHead, KernelUpdater

__all__ = ['from_official', 'modern_swin', 'rename_official_keys', 'to_official']

# Official module inside ``KernelUpdator`` -> module inside our ``KernelUpdater``; symbols of Eq. 4 and 5.
UPDATER_KEYS = {
    'dynamic_layer': 'feature_layer',  # phi_1, psi_3
    'input_layer': 'kernel_layer',  # phi_2, psi_4
    'input_gate': 'kernel_gate',  # psi_1
    'update_gate': 'feature_gate',  # psi_2
    'input_norm_in': 'kernel_gate_norm',
    'norm_in': 'feature_gate_norm',
    'norm_out': 'feature_norm',
    'input_norm_out': 'kernel_norm',
    'gate_norm': 'gate_norm',
    'fc_layer': 'fc',
    'fc_norm': 'fc_norm',
}

# Official module inside ``KernelUpdateHead`` -> module inside ours.
UPDATE_HEAD_KEYS = {
    'attention.attn': 'interaction.attention',
    'attention_norm': 'interaction.attention_norm',
    'ffn': 'interaction.ffn',
    'ffn_norm': 'interaction.ffn_norm',
    'feat_transform.conv': 'feat_transform',
    'mask_fcs': 'mask_fcs',
    'fc_mask': 'fc_mask',
    'cls_fcs': 'classifier.fcs',
    'fc_cls': 'classifier.fc_cls',
    **{f'kernel_update_conv.{official}': f'updater.{ours}' for official, ours in UPDATER_KEYS.items()},
}

# Official module inside ``ConvKernelHead`` -> module inside our ``KernelHead``; other names are the same.
KERNEL_HEAD_KEYS = {'ins_downsample': 'loc_refine', 'seg_downsample': 'seg_refine'}

# Official container inside a detector -> container inside our ``KNet``. Those of a segmentor have the same names.
CONTAINER_KEYS = {
    'rpn_head': 'panoptic_head.kernel_head',
    'roi_head.mask_head': 'panoptic_head.kernel_update_head',
}

# Names that only the original Swin has inside a backbone.
_ORIGINAL_SWIN = re.compile(r'layers\.\d+\.(blocks|downsample)\.|patch_embed\.proj\.')


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename official weights for a model of ours.

    ``model`` may be an updater, an update head, a decode head, or a whole segmentor or detector; ``state_dict`` holds
    the weights of the corresponding official module. Names that are ours already stay.

    Raises:
        ValueError: Weights are unknown, missing, given twice or of another shape. The message lists all of them.
    """
    pairs, own = _name_pairs(model), model.state_dict()
    renamed: dict[str, Tensor] = {}
    repeated = []
    for key, value in state_dict.items():
        name = key if key in own else _rename(key, pairs)
        if name in renamed:
            repeated.append(f'{key}: the same weight as {name}')
        renamed[name] = value
    back = _inverse(pairs)
    problems = {
        'unknown': sorted(_rename(key, back) for key in renamed.keys() - own.keys()),
        'given twice': repeated,
        'missing': sorted(_rename(key, back) for key in own.keys() - renamed.keys()),
        'of another shape': [
            f'{_rename(key, back)}: {tuple(value.shape)} in the file, {tuple(own[key].shape)} in the model'
            for key, value in renamed.items() if key in own and value.shape != own[key].shape],
    }
    if any(problems.values()):
        lines = [f'the weights do not fit {type(model).__name__}:', *(f'  {each}' for each in mismatches(renamed, own))]
        lines += ['\n    '.join([f'  {len(keys)} {what}:', *keys]) for what, keys in problems.items() if keys]
        raise ValueError('\n'.join(lines))
    return renamed


def to_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename weights of ``model``, a module of ours, to the official names, which are mmseg's too."""
    back = _inverse(_name_pairs(model))
    return {_rename(key, back): value for key, value in state_dict.items()}


def rename_official_keys(state_dict: dict[str, Any], model: nn.Module, prefix: str = '') -> None:
    """Rename official weights, those of the original Swin too, in place while ``model`` loads them; other names stay.

    ``prefix`` is the path of ``model`` in ``state_dict``, with a trailing dot.
    """
    modern = modern_swin(state_dict, model, prefix)
    pairs = [(prefix + official, prefix + ours) for official, ours in _name_pairs(model)]
    state_dict.clear()
    state_dict.update({_rename(key, pairs): value for key, value in modern.items()})


def modern_swin(state_dict: Mapping[str, Tensor], model: nn.Module, prefix: str = '') -> dict[str, Tensor]:
    """Convert a backbone of the original Swin code to the layout of mmdet's and mmseg's ``SwinTransformer``.

    mmdet's converter renames the weights and reorders the input channels of the downsampling layers. Other weights
    stay, as do those whose name ``model`` has.
    """
    backbone = f'{prefix}backbone.'
    own = model.state_dict(keep_vars=True).keys()
    modern: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        original = key.startswith(backbone) and _ORIGINAL_SWIN.match(key, len(backbone))
        if original and key.removeprefix(prefix) not in own:
            require('mmdet')
            from mmdet.models.backbones.swin import swin_converter
            (name, value), = swin_converter({key.removeprefix(backbone): value}).items()
            key = prefix + name
        modern[key] = value
    return modern


def _name_pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Return official and our prefixes of all names in ``model`` that differ, with trailing dots, longest first."""
    pairs = []
    for name, module in model.named_modules():
        if isinstance(module, KernelUpdateHead):
            table = UPDATE_HEAD_KEYS
        elif isinstance(module, KernelUpdater) and module is model:
            table = UPDATER_KEYS
        elif hasattr(module, 'init_kernels'):  # a KernelHead, whose module needs mmdet
            table = KERNEL_HEAD_KEYS
        else:
            continue
        ours = official = f'{name}.' if name else ''
        for theirs, container in CONTAINER_KEYS.items():
            if ours.startswith(f'{container}.'):
                official = f'{theirs}.{ours.removeprefix(f"{container}.")}'
        pairs += [(f'{official}{theirs}.', f'{ours}{own}.') for theirs, own in table.items()]
        pairs.append((official, ours))
    return pairs


def _inverse(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(target, source) for source, target in pairs]


def _rename(key: str, pairs: list[tuple[str, str]]) -> str:
    return next((target + key.removeprefix(source) for source, target in pairs if key.startswith(source)), key)
