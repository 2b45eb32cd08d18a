"""Which mask belongs to which image, by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from knet_plugin.datasets.prepare.file_names import composed, folded
from knet_plugin.datasets.prepare.sample import Reading

__all__ = ['Pairs', 'pair']

_SEPARATOR = re.compile(r'[_\-. ]+')
_COMMON = {'mask', 'masks', 'label', 'labels', 'labelids', 'seg', 'segm', 'segmentation', 'gt', 'gtfine', 'annotation',
           'annotations', 'target', 'instance', 'instances', 'instanceids', 'image', 'images', 'img', 'imgs', 'rgb',
           'photo', 'leftimg8bit'}


@dataclass
class Pairs:
    """Masks of each image that has any, and what has no partner; all relative to their folders."""

    masks: dict[PurePosixPath, list[PurePosixPath]] = field(default_factory=dict)
    images_alone: list[PurePosixPath] = field(default_factory=list)
    masks_alone: list[PurePosixPath] = field(default_factory=list)

    @property
    def several(self) -> bool:
        """Whether an image has more than one mask."""
        return any(len(masks) > 1 for masks in self.masks.values())

    def note(self, reading: Reading, others: str) -> None:
        """Note what is left out; ``others`` says which other files are beside the images."""
        total = len(self.masks) + len(self.images_alone)
        reading.note(self.images_alone, f'of {total} images have no mask and are left out')
        reading.note(self.masks_alone, f'masks have no image and are left out{others}')


def pair(images: Sequence[PurePosixPath], masks: Sequence[PurePosixPath]) -> Pairs:
    """Find the image of each mask.

    It has the same name but for the extension and for words such as 'mask' or 'image'; or the mask's name goes on after
    that of the image ('a.jpg', 'a_1.png'), or the mask's folder has the name of the image ('a.jpg', 'a/1.png'). Names
    with folders are compared first, and if no mask has an image then, names alone. Case counts only where several
    images differ in nothing else.

    Raises:
        ValueError: Two images have the same name.
    """
    for with_folders in (True, False):
        owners, others = (_Owners(images, with_folders, key) for key in (composed, folded))
        pairs = Pairs()
        for mask in masks:
            owner = owners.find(mask) or others.find(mask)
            if owner is None:
                pairs.masks_alone.append(mask)
            else:
                pairs.masks.setdefault(owner, []).append(mask)
        if pairs.masks:
            break
    pairs.images_alone = [image for image in images if image not in pairs.masks]
    return pairs


class _Owners:
    """Images by their names, as ``key`` writes them."""

    def __init__(self, images: Sequence[PurePosixPath], with_folders: bool, key: Callable[[str], str]):
        self.with_folders = with_folders
        self.key = key
        self._exact: dict[tuple[str, str], PurePosixPath | None] = {}
        self._reduced: dict[tuple[str, str], PurePosixPath | None] = {}
        for image in images:
            folder = self._folder(image)
            exact = folder, key(image.stem)
            other = self._exact.get(exact)
            self._exact[exact] = None if exact in self._exact else image  # None: ambiguous
            if other and key is composed:
                raise ValueError(f'the images {other} and {image} have the same name, so that their masks cannot be '
                                 'told apart: rename one of them')
            reduced = folder, _reduced(exact[1])
            self._reduced[reduced] = None if reduced in self._reduced else image

    def find(self, mask: PurePosixPath) -> PurePosixPath | None:
        folder = self._folder(mask)
        if exact := self._exact.get((folder, self.key(mask.stem))):
            return exact
        words = _reduced(self.key(mask.stem)).split('_')
        for number in range(len(words), 0, -1):
            if owner := self._reduced.get((folder, '_'.join(words[:number]))):
                return owner
        above = self._folder(mask.parent), self.key(mask.parent.name)
        return self._exact.get(above)

    def _folder(self, path: PurePosixPath) -> str:
        return self.key(str(path.parent)) if self.with_folders else ''


def _reduced(stem: str) -> str:
    """The name without the words that say only that this is an image or a mask."""
    words = [word for word in _SEPARATOR.split(stem) if word]
    kept = [word for word in words if word.lower() not in _COMMON]
    return '_'.join(kept or words)
