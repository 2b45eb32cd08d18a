"""Which images are for training, and which for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from knet_plugin.datasets.prepare.sample import Reading, Sample

__all__ = ['SPLIT_FOLDERS', 'split_samples']

SPLIT_FOLDERS = {'train': ('train', 'training'), 'val': ('val', 'valid', 'validation')}
_VAL = 0.2


def split_samples(reading: Reading, val: float | None, seed: int) -> dict[str, list[Sample]]:
    """Return the samples of 'train' and 'val', sorted by name.

    Args:
        reading: Its samples; gets a note if ``val`` overrides a split.
        val: Share of validation, between 0 and 1; at least one image is in each split, drawn by ``seed`` whatever the
            order of the samples is. None: the samples' own split, that of their folders, or 0.2.
        seed: At least 0.

    Raises:
        ValueError: There is only one image, or none in a split.
    """
    samples = sorted(reading.samples, key=lambda sample: (sample.name, str(sample.image)))
    divided = samples if all(sample.split for sample in samples) else _by_folders(samples)
    if divided and val is None:
        samples = divided
    else:
        if divided:
            reading.notes.append(f'--val {val} draws a new split from the images of train and val together')
        samples = _draw(samples, _VAL if val is None else val, seed)
    splits = {split: [sample for sample in samples if sample.split == split] for split in SPLIT_FOLDERS}
    for split, members in splits.items():
        if not members:
            raise ValueError(f'there is no image with annotation for {split}')
    return splits


def _draw(samples: Sequence[Sample], val: float, seed: int) -> list[Sample]:
    if len(samples) < 2:
        raise ValueError(f'{samples[0].image}: there is no other image with annotation, for validation')
    number = min(max(1, round(val * len(samples))), len(samples) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(samples))[:number].tolist())
    return [replace(sample, split='val' if i in chosen else 'train') for i, sample in enumerate(samples)]


def _by_folders(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples with their split, without its folder, if all are in such folders; otherwise nothing."""
    split_of = {folder: split for split, folders in SPLIT_FOLDERS.items() for folder in folders}
    divided = []
    for sample in samples:
        folder, _, name = sample.name.partition('/')
        if folder not in split_of or not name:
            return []
        divided.append(replace(sample, name=name, split=split_of[folder]))
    return divided if len({sample.split for sample in divided}) == len(SPLIT_FOLDERS) else []
