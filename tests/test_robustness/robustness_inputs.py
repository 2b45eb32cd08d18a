"""Random inputs of the robustness tests: hypothesis chooses kinds, sizes and seeds, torch draws the numbers."""

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from torch import Tensor

MASKS = ('noise', 'box', 'pixel', 'whole', 'empty', 'previous')
"""Kinds of masks; 'previous' repeats the one before."""
LABEL_MAPS = ('noise', 'ignored', 'constant', 'halves')
"""Kinds of label maps; 'halves' is half ignored."""
LOGITS = ('noise', 'equal', 'large', 'never', 'always')
"""Kinds of logits; 'large' gives probabilities of exactly 0 and 1."""
SEEDS = st.integers(0, 2**32 - 1)


def examples(count: int) -> settings:
    """Test with the same examples in every run, without minutes of shrinking after a failure."""
    return settings(max_examples=count, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck),
                    phases=[Phase.explicit, Phase.generate])


def make_masks(kinds: list[str], height: int, width: int, generator: torch.Generator) -> Tensor:
    """Masks of these kinds, (G, height, width) of 0 and 1."""
    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    masks = torch.zeros(len(kinds), height, width, dtype=torch.uint8)
    for i, kind in enumerate(kinds):
        top, left = below(height), below(width)
        if kind == 'noise':
            masks[i] = torch.rand(height, width, generator=generator) > torch.rand((), generator=generator)
        elif kind == 'box':
            masks[i, top:top + 1 + below(height), left:left + 1 + below(width)] = 1
        elif kind == 'pixel':
            masks[i, top, left] = 1
        elif kind == 'whole':
            masks[i] = 1
        elif kind == 'previous' and i:
            masks[i] = masks[i - 1]
    return masks


def make_label_map(kind: str, num_classes: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Label map (height, width); 255 is ignored."""
    labels = torch.randint(num_classes, (height, width), generator=generator)
    if kind == 'ignored':
        labels[:] = 255
    elif kind == 'constant':
        labels[:] = labels[0, 0].clone()
    elif kind == 'halves':
        labels[:, width // 2:] = 255
    return labels


def make_logits(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Logits of one of the kinds in ``LOGITS``."""
    noise = torch.randn(shape, generator=generator)
    return dict(noise=noise, equal=torch.zeros(shape), large=1e4 * noise, never=noise - 1e3, always=noise + 1e3)[kind]
