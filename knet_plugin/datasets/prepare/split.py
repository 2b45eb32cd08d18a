"""Which images are for training, and which for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from knet_plugin.datasets.prepare.sample import Sample

__all__ = ['split_samples']


def split_samples(samples: Sequence[Sample], val: float, seed: int) -> dict[str, list[Sample]]:
    """Return the samples of 'train' and 'val', sorted by name.

    Samples that have a split keep it. The others are drawn by ``seed``, whatever their order is.

    Args:
        samples: Of all sources.
        val: Share of validation, between 0 and 1; at least one image is in each split.
        seed: At least 0.

    Raises:
        ValueError: There is only one image, or none in a split.
    """
    samples = sorted(samples, key=lambda sample: (sample.name, str(sample.image)))
    if any(sample.split is None for sample in samples):
        if len(samples) < 2:
            raise ValueError(f'{samples[0].image}: there is no other image with annotation, for validation')
        number = min(max(1, round(val * len(samples))), len(samples) - 1)
        chosen = set(np.random.default_rng(seed).permutation(len(samples))[:number].tolist())
        samples = [replace(sample, split='val' if i in chosen else 'train') for i, sample in enumerate(samples)]
    splits = {split: [sample for sample in samples if sample.split == split] for split in ('train', 'val')}
    for split, members in splits.items():
        if not members:
            raise ValueError(f'there is no image with annotation for {split}')
    return splits
