"""What is probably meant where weights do not fit a model."""

import logging
import re
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

__all__ = ['COMPUTED', 'mismatches', 'log_mismatches']

COMPUTED = ('relative_position_index', 'attn_mask', 'num_batches_tracked')
"""Ends of the names of buffers that a host may compute instead of keeping them."""


def mismatches(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Guess why weights do not fit.

    Args:
        weights: What is to be loaded, under our names as far as they are known.
        own: What the model has.

    Returns:
        Sentences, the likeliest first; none where nothing typical is wrong.
    """
    if not any(key in own for key in weights):
        return ['none of the weights has a name of the model: is it another model\'s file?']
    found = []
    shapes = {key: (tuple(weights[key].shape), tuple(own[key].shape)) for key in weights.keys() & own.keys()
              if isinstance(weights[key], Tensor) and weights[key].shape != own[key].shape}

    def differing(suffix: str, axis: int) -> tuple[int, int] | None:
        return next(((theirs[axis], ours[axis]) for key, (theirs, ours) in sorted(shapes.items())
                     if key.endswith(suffix) and len(theirs) == len(ours) and theirs[axis] != ours[axis]), None)

    for suffix in ('fc_cls.weight', 'conv_seg.weight'):
        if numbers := differing(suffix, 0):
            found.append(f'the file has {numbers[0]} classes, the model {numbers[1]}: check num_classes, or '
                         'num_things_classes and num_stuff_classes')
            break
    if numbers := differing('init_kernels.weight', 0):
        found.append(f'the file has {numbers[0]} instance kernels, the model {numbers[1]}: check num_kernels')
    if numbers := differing('init_kernels.weight', 2):
        found.append(f'the kernels of the file are {numbers[0]} wide, those of the model {numbers[1]}: check '
                     'kernel_size')
    stages = [_stages(keys) for keys in (weights, own)]
    if stages[0] not in (0, stages[1]):
        found.append(f'the file has {stages[0]} update stages, the model {stages[1]}: check num_stages')
    blocks = [_blocks(keys) for keys in (weights, own)]
    if blocks[0] != blocks[1]:
        found.append(f'the backbones differ (blocks by stage: {blocks[0]} in the file, {blocks[1]} in the model): '
                     'check backbone.type and depth')
    elif any(key.startswith('backbone.') and not key.endswith(COMPUTED)
             for key in (weights.keys() ^ own.keys()) | shapes.keys()):
        found.append('the backbones differ: check its type, its width and whether it has deformable convolutions')
    return found


def log_mismatches(state_dict: Mapping[str, Any], model: nn.Module, prefix: str = '') -> None:
    """Say in the log why weights that are being loaded do not fit, where that can be guessed.

    Args:
        state_dict: What is being loaded, under our names as far as they are known.
        model: The module that it is for.
        prefix: Where the module sits in ``state_dict``, with a trailing dot.
    """
    weights = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    for guess in mismatches(weights, model.state_dict()):
        print_log(f'the weights of {prefix.rstrip(".") or "the model"} do not fit: {guess}', logger='current',
                  level=logging.WARNING)


def _stages(keys: Mapping[str, Tensor]) -> int:
    numbers = [int(match[1]) for key in keys if (match := re.search(r'(?:kernel_update_head|mask_head)\.(\d+)\.', key))]
    return max(numbers, default=-1) + 1


def _blocks(keys: Mapping[str, Tensor]) -> list[int]:
    """Blocks in each stage of a ResNet or a Swin."""
    found: dict[str, int] = {}
    for key in keys:
        if match := re.match(r'backbone\.(layer\d+|stages\.\d+\.blocks)\.(\d+)\.', key):
            found[match[1]] = max(found.get(match[1], 0), int(match[2]) + 1)
    return [found[name] for name in sorted(found)]
