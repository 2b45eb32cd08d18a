"""Names of the weights in the official release (and in mmseg's own K-Net), as a table.

Only the parts that are ours are named anew; backbones, necks and stock decode heads keep their hosts' names.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmdet.models.backbones.swin import swin_converter
from torch import Tensor, nn

from knet_plugin.checkpoint.mismatch import mismatches
from knet_plugin.core import KernelUpdateHead, KernelUpdater

__all__ = ['CONTAINER_KEYS', 'KERNEL_HEAD_KEYS', 'UPDATER_KEYS', 'UPDATE_HEAD_KEYS', 'from_official',
           'modern_swin', 'rename_official_keys', 'to_official']

# Official module inside ``KernelUpdator`` -> module inside our ``KernelUpdater``; the symbols are those of Eq. 4 and 5.
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

# Official module inside ``ConvKernelHead`` -> module inside our ``KernelHead``; the others are named alike.
KERNEL_HEAD_KEYS = {'ins_downsample': 'loc_refine', 'seg_downsample': 'seg_refine'}

# Official container inside a detector -> container inside our ``KNet``. A segmentor's are named alike on both sides.
CONTAINER_KEYS = {
    'rpn_head': 'panoptic_head.kernel_head',
    'roi_head.mask_head': 'panoptic_head.kernel_update_head',
}


# What only the original Swin has inside a backbone.
_ORIGINAL_SWIN = re.compile(r'layers\.\d+\.(blocks|downsample)\.|patch_embed\.proj\.')


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename official weights for a model of ours.

    Args:
        state_dict: Weights of the official module of the same kind: an updater, an update head, a decode head, or a
            whole segmentor or detector. Weights that have our names already keep them.
        model: Our module that is to load them. It is not changed.

    Returns:
        The weights under our names, ready for ``model.load_state_dict``.

    Raises:
        ValueError: If a weight is unknown, missing or of another shape; the message lists every one, after a hint.
    """
    parts = _parts(model)
    renamed: dict[str, Tensor] = {}
    unknown, repeated = [], []
    own = model.state_dict()
    for key, value in state_dict.items():
        ours = key if key in own else _rename(key, parts)
        if ours is None:
            unknown.append(key)
        elif ours in renamed:
            repeated.append(f'{key}: the same weight as {ours}')
        else:
            renamed[ours] = value
    back = _inverse(parts)
    unknown += sorted(_rename(key, back) or key for key in renamed.keys() - own.keys())
    missing = sorted(_rename(key, back) or key for key in own.keys() - renamed.keys())
    misshapen = [f'{_rename(key, back) or key}: {tuple(value.shape)} in the file, {tuple(own[key].shape)} in the model'
                 for key, value in renamed.items() if key in own and value.shape != own[key].shape]
    problems = {'unknown': unknown, 'given twice': repeated, 'missing': missing, 'of another shape': misshapen}
    if any(problems.values()):
        guesses = [f'  {guess}\n' for guess in mismatches(renamed, own)]
        raise ValueError(f'the weights do not fit {type(model).__name__}:\n' + ''.join(guesses) + '\n'.join(
            f'  {len(keys)} {what}:\n    ' + '\n    '.join(keys) for what, keys in problems.items() if keys))
    return renamed


def to_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The way back: weights of ``model`` under the official names, which are mmseg's too.

    Args:
        state_dict: Weights under our names.
        model: Our module that they belong to.

    Returns:
        The same tensors under official names.
    """
    back = _inverse(_parts(model))
    return {_rename(key, back) or key: value for key, value in state_dict.items()}


def rename_official_keys(state_dict: dict[str, Any], model: nn.Module, prefix: str = '') -> None:
    """Rename what is official below a prefix, in place; our own names and unknown ones stay.

    A backbone in the layout of the original Swin is brought to the hosts'.

    Args:
        state_dict: Weights that are being loaded.
        model: Our module that they are meant for.
        prefix: Where the module sits in ``state_dict``, with a trailing dot.
    """
    modern = modern_swin(state_dict, model, prefix)
    state_dict.clear()
    state_dict.update(modern)
    parts = [part._replace(source=prefix + part.source, target=prefix + part.target) for part in _parts(model)]
    for key in list(state_dict):
        if (ours := _rename(key, parts)) not in (None, key):
            state_dict[ours] = state_dict.pop(key)


def modern_swin(state_dict: Mapping[str, Tensor], model: nn.Module, prefix: str = '') -> dict[str, Tensor]:
    """Bring a backbone of the original Swin code to the hosts' layout, by mmdet's own converter.

    Names change, and the downsampling layers' input channels change their order. Everything else stays as it is, other
    backbones that have ``layers`` (ViT, PVT) among it.

    Args:
        state_dict: Weights of a whole model.
        model: The model that is to have them; what it has under the same name is not the original Swin's.
        prefix: Where the model sits in ``state_dict``, with a trailing dot.

    Returns:
        The weights, the backbone in the layout of mmdet's and mmseg's ``SwinTransformer``.
    """
    backbone = f'{prefix}backbone.'
    own = model.state_dict(keep_vars=True).keys()
    modern: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if (key.startswith(backbone) and _ORIGINAL_SWIN.match(key, len(backbone))
                and key.removeprefix(prefix) not in own):
            (name, value), = swin_converter({key.removeprefix(backbone): value}).items()
            key = prefix + name
        modern[key] = value
    return modern


class _Part(NamedTuple):
    """Where one of our parts sits on both sides, with trailing dots, and its table."""

    source: str
    target: str
    table: dict[str, str]
    complete: bool = True
    """Whether the table has all names; if not, the others are the same on both sides."""


def _parts(model: nn.Module) -> list[_Part]:
    """The model itself tells where our parts sit."""
    from knet_plugin.detection.kernel_head import KernelHead  # it is loaded after this module

    if isinstance(model, KernelUpdater):
        return [_Part('', '', UPDATER_KEYS)]
    modules = dict(model.named_modules())
    containers = {ours: official for official, ours in CONTAINER_KEYS.items() if ours in modules}
    parts = []
    for name, module in modules.items():
        if isinstance(module, KernelUpdateHead | KernelHead):
            container, _, index = name.rpartition('.')
            official = containers.get(name, name)
            if container in containers:
                official = f'{containers[container]}.{index}'
            is_stage = isinstance(module, KernelUpdateHead)
            parts.append(_Part(f'{official}.' if official else '', f'{name}.' if name else '',
                               UPDATE_HEAD_KEYS if is_stage else KERNEL_HEAD_KEYS, complete=is_stage))
    return parts


def _inverse(parts: list[_Part]) -> list[_Part]:
    return [_Part(target, source, {ours: official for official, ours in table.items()}, complete)
            for source, target, table, complete in parts]


def _rename(key: str, parts: list[_Part]) -> str | None:
    """The key's other name, itself where it belongs to none of our parts, None where our part has no such weight."""
    for source, target, table, complete in parts:
        if key.startswith(source):
            inner = key.removeprefix(source)
            same = None if complete else target + inner
            return next((target + ours + inner.removeprefix(official) for official, ours in table.items()
                         if inner.startswith(f'{official}.')), same)
    return key
