"""A folder of pictures with masks, as people have them: the example of docs/own_data.md."""

from pathlib import Path

import cv2
import numpy as np

from knet_plugin.datasets.shapes.scene import SEGMENTS_PER_CLASS, THING_CLASSES, Style, draw_scene

__all__ = ['write_example']

CLASSES = dict(disk=('warm_disk', 'cool_disk'), square=('warm_square', 'cool_square'), star=('star', ))
STYLE = Style(ambiguity=0, hue=1, min_object=24)


def write_example(folder: Path, number: int, size: int) -> None:
    """Write ``number`` pictures of ``size`` x ``size`` pixels and their masks.

    Raises:
        FileExistsError: ``folder`` holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f'{folder} is not empty; give another folder, or remove it')
    categories = {name: [THING_CLASSES.index(each) + 1 for each in names] for name, names in CLASSES.items()}
    for name in ('images', *(f'masks/{each}' for each in categories)):
        (folder / name).mkdir(parents=True)
    for index in range(number):
        scene = draw_scene(np.random.default_rng(index), (size, size), STYLE)
        cv2.imwrite(str(folder / f'images/{index:03d}.jpg'), scene.image[..., ::-1])
        for name, numbers in categories.items():
            objects = np.where(np.isin(scene.segment_map // SEGMENTS_PER_CLASS, numbers), scene.segment_map, 0)
            values = np.unique(objects, return_inverse=True)[1].reshape(objects.shape)
            # Objects may cover everything: then no pixel is background, and the values start at 1.
            values = values.astype(np.uint8) + bool((objects > 0).all())
            cv2.imwrite(str(folder / f'masks/{name}/{index:03d}.png'), values)
