"""Small COCO files of panoptic and instance annotations that are not as COCO's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIZE = (64, 96)
CATEGORIES = (dict(id=3, name='sky', isthing=0), dict(id=1, name='cat', isthing=1), dict(id=9, name='grass', isthing=0),
              dict(id=4, name='dog', isthing=1))
"""Stuff before things, and ids in no order."""
NAMES = ('cat', 'dog', 'sky', 'grass')
"""The classes in the order of their labels."""


def segment_map(index: int) -> tuple[np.ndarray, dict[int, int]]:
    """Segment ids, (H, W), and the category of each id; every second image has stuff alone, every one a void row."""
    ids = np.full(SIZE, 1)
    ids[30:] = 2
    ids[-1] = 0
    if index % 2 == 0:
        ids[8:24, 10 + index:30 + index] = 3
        ids[40:56, 50:70] = 4
        ids[2:6, 80:90] = 5
    return ids, dict(zip([1, 2, 3, 4, 5] if index % 2 == 0 else [1, 2], [3, 9, 1, 4, 1], strict=False))


def odd_data(root: Path, number: int = 4, image_name: str = 'images/{}.jpg', png_name: str = '{}.png',
             edit: Callable[[dict], Any] = lambda content: None) -> Path:
    """Write images below ``root``, PNGs below ``root/png``, ``panoptic.json`` and ``instances.json``.

    Args:
        root: Folder to make.
        number: Number of images.
        image_name: ``file_name`` of an image of a number.
        png_name: ``file_name`` of its annotation.
        edit: Changes the content of either file.
    """
    images, panoptic, instances = [], [], []
    for index in range(number):
        ids, categories = segment_map(index)
        name, png = image_name.format(index), png_name.format(index)
        image = cv2.cvtColor((ids * 40 + 20).astype(np.uint8), cv2.COLOR_GRAY2BGR)
        zeros = np.zeros_like(ids)
        for path, pixels in ((root / name, image), (root / 'png' / png, np.stack([zeros, zeros, ids], axis=-1))):
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)
        images.append(dict(id=10 + index, file_name=name, height=SIZE[0], width=SIZE[1]))
        segments = [dict(_measured(ids == number), id=number, category_id=category, iscrowd=0)
                    for number, category in categories.items()]
        panoptic.append(dict(image_id=10 + index, file_name=png, segments_info=segments))
        instances += [dict({**each, 'id': 100 * index + each['id']}, image_id=10 + index, segmentation=_outline(each))
                      for each in segments if each['category_id'] in (1, 4)]
    things = [category for category in CATEGORIES if category['isthing']]
    for name, annotations, known in (('panoptic', panoptic, CATEGORIES), ('instances', instances, things)):
        content = json.loads(json.dumps(dict(images=images, annotations=annotations, categories=known)))
        edit(content)
        (root / f'{name}.json').write_text(json.dumps(content))
    return root


def _measured(mask: np.ndarray) -> dict:
    rows, columns = np.nonzero(mask)
    x, y = columns.min(), rows.min()
    return dict(area=int(mask.sum()), bbox=[int(v) for v in (x, y, columns.max() + 1 - x, rows.max() + 1 - y)])


def _outline(segment: dict) -> list:
    x, y, w, h = segment['bbox']
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]
