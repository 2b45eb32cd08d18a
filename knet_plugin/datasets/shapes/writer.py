"""Writing Shapes to disk.

::

    root/
        manifest.json                          options of make_shapes
        {train,val}/000000.jpg
        annotations/
            instances_{train,val}.json         COCO instances
            panoptic_{train,val}.json          COCO panoptic
            panoptic_{train,val}/000000.png    segment id = R + 256 G + 256^2 B, 0 is void
            semantic_{train,val}/000000.png    as in ADE20K: 0 is unlabelled, classes start at 1
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from knet_plugin.datasets.shapes.formats import write_annotations, write_scene
from knet_plugin.datasets.shapes.scene import Style, draw_scene
from knet_plugin.datasets.whole_folder import whole_folder

_GENERATOR_VERSION = 1  # increase it when the same options give other images


def make_shapes(root: str | os.PathLike[str],
                num_train: int = 800,
                num_val: int = 200,
                size: int | tuple[int, int] = 128,
                seed: int = 0,
                ambiguity: float = Style.ambiguity,
                hue: float = Style.hue,
                min_object: float = Style.min_object,
                overwrite: bool = False) -> None:
    """Make the data set unless ``root`` already holds it.

    An image depends on its index, split, size, seed and style only. ``root`` appears when the data set is complete.
    ``ambiguity``, ``hue`` and ``min_object`` are those of ``Style``.

    Args:
        root: Directory of the data set.
        num_train: Number of images for training.
        num_val: Number of images for validation.
        size: Side of the images in pixels or (height, width), at least 32.
        seed: At least 0.
        overwrite: Replace Shapes made with other options.

    Raises:
        ValueError: An option is out of range.
        FileExistsError: ``root`` holds something else, or Shapes made with other options.
    """
    size = (size, size) if isinstance(size, int) else size
    for name, value, lowest in (('num_train', num_train, 0), ('num_val', num_val, 0), ('size', min(size), 32),
                                ('seed', seed, 0)):
        if value < lowest:
            raise ValueError(f'{name} must be at least {lowest}, got {value!r}')
    style = Style(float(ambiguity), float(hue), float(min_object))
    manifest = dict(num_train=num_train, num_val=num_val, size=list(size), seed=seed, **asdict(style),
                    generator_version=_GENERATOR_VERSION)
    root = Path(root).resolve()
    if _is_made(root, manifest, overwrite):
        return
    try:
        with whole_folder(root, overwrite) as draft:
            _write(draft, manifest, style)
    except FileExistsError:  # another process was faster
        _is_made(root, manifest, overwrite=False)


def _write(root: Path, manifest: dict[str, Any], style: Style) -> None:
    (root / 'annotations').mkdir(parents=True)
    height, width = manifest['size']
    for number, split in enumerate(('train', 'val')):
        images = []
        for index in range(manifest[f'num_{split}']):
            rng = np.random.default_rng(np.random.SeedSequence(manifest['seed'], spawn_key=(number, index)))
            images.append(write_scene(root, split, f'{index:06d}', draw_scene(rng, (height, width), style)))
        write_annotations(root, split, (height, width), images)
    (root / 'manifest.json').write_text(json.dumps(manifest))


def _is_made(root: Path, manifest: dict[str, Any], overwrite: bool) -> bool:
    """Whether ``root`` holds the data set; if not, it may be written."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / 'manifest.json').read_text())
    except (OSError, ValueError):
        found = {}
    if 'generator_version' not in found:
        raise FileExistsError(f'{root} exists and is not a Shapes data set')
    different = [f'{name} is {found.get(name)!r}, not {value!r}'
                 for name, value in manifest.items() if found.get(name) != value]
    if different and not overwrite:
        raise FileExistsError(f'{root} holds Shapes with other options: {"; ".join(different)}')
    return not different
