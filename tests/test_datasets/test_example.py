"""The folder of example pictures."""

import cv2
import numpy as np
import pytest

from knet_plugin.datasets.shapes.example import CLASSES, write_example


def test_masks_number_the_objects_of_each_class(tmp_path):
    write_example(tmp_path / 'pictures', 12, 64)
    names = [f'{index:03d}' for index in range(12)]
    assert [path.stem for path in sorted((tmp_path / 'pictures/images').iterdir())] == names
    for folder in CLASSES:
        files = [tmp_path / f'pictures/masks/{folder}/{name}.png' for name in names]
        masks = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]
        assert all(mask.shape == (64, 64) and np.array_equal(np.unique(mask), range(mask.max() + 1)) for mask in masks)
        assert any(mask.any() for mask in masks)


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / 'mine.txt').touch()
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        write_example(tmp_path, 1, 64)
