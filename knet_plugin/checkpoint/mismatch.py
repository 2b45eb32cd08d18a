"""Explains why weights do not fit a model."""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

__all__ = ['COMPUTED', 'log_mismatches', 'mismatches']

# Suffixes of buffers that some versions of the hosts compute instead of saving.
COMPUTED = ('relative_position_index', 'attn_mask', 'num_batches_tracked')


def mismatches(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Guess why ``weights``, under our names, do not fit a model with the weights ``own``."""
    if not any(key in own for key in weights):
        return ['none of the weights has a name of the model: is the file of another model?']
    shapes = {key: (tuple(weights[key].shape), tuple(own[key].shape)) for key in sorted(weights.keys() & own.keys())
              if isinstance(weights[key], Tensor) and weights[key].shape != own[key].shape}

    def sizes(*suffixes: str) -> tuple[int, int] | None:
        return next(((theirs[0], ours[0]) for key, (theirs, ours) in shapes.items()
                     if key.endswith(suffixes) and theirs and theirs[0] != ours[0]), None)

    found = []
    if differ := sizes('fc_cls.weight', 'conv_seg.weight'):
        found.append(f'the file has {differ[0]} classes, the model {differ[1]}: check num_classes, or '
                     'num_things_classes and num_stuff_classes')
    if differ := sizes('init_kernels.weight'):
        found.append(f'the file has {differ[0]} instance kernels, the model {differ[1]}: check num_kernels')
    theirs, ours = _stages(weights), _stages(own)
    if theirs not in (0, ours):
        found.append(f'the file has {theirs} update stages, the model {ours}: check num_stages')
    if (blocks := _blocks(weights)) != _blocks(own):
        found.append(f'the backbones differ (blocks by stage: {blocks} in the file, {_blocks(own)} in the model): '
                     'check backbone.type and depth')
    elif any(key.startswith('backbone.') and not key.endswith(COMPUTED)
             for key in (weights.keys() ^ own.keys()) | shapes.keys()):
        found.append('the backbones differ: check type, width and deformable convolutions')
    return found


def log_mismatches(state_dict: Mapping[str, Any], model: nn.Module, prefix: str = '') -> None:
    """Warn of the ``mismatches`` of weights that are being loaded, under our names and below ``prefix``."""
    weights = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    for each in mismatches(weights, model.state_dict()):
        print_log(f'the weights of {prefix.rstrip(".") or "the model"} do not fit: {each}', 'current', logging.WARNING)


def _stages(keys: Iterable[str]) -> int:
    matches = (re.search(r'(?:kernel_update_head|mask_head)\.(\d+)\.', key) for key in keys)
    return max((int(match[1]) for match in matches if match), default=-1) + 1


def _blocks(keys: Iterable[str]) -> list[int]:
    """Return the number of blocks in each stage of a ResNet or Swin."""
    found: dict[str, int] = {}
    for key in keys:
        if match := re.match(r'backbone\.(layer\d+|stages\.\d+\.blocks)\.(\d+)\.', key):
            found[match[1]] = max(found.get(match[1], 0), int(match[2]) + 1)
    return [found[name] for name in sorted(found)]
