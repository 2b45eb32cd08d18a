"""Counted pairs of true and predicted classes."""

import numpy as np
import pycocotools.mask as mask_utils

from knet_plugin.inference.confusion import Confusion, label_map
from knet_plugin.visualization import VOID, Instance, Result, Segment


def maps(values):
    return Result((1, len(values)), semantic=np.array([values], np.uint8))


def test_pixels_but_not_void_ones_of_the_truth(tmp_path):
    confusion = Confusion(['a', 'b'])
    confusion.add(maps([0, 1, 1, VOID, 0]), maps([0, 0, 1, 1, VOID]))
    assert confusion.counts.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    confusion.write_table(tmp_path / 'c.csv')
    assert (tmp_path / 'c.csv').read_text().splitlines()[1] == 'a,1,1,0'
    confusion.write_picture(tmp_path / 'c.png')
    assert (tmp_path / 'c.png').read_bytes()[1:4] == b'PNG'


def test_labels_of_a_panoptic_map():
    panoptic = Result((1, 3), np.array([[0, 5, 2]]), [Segment(5, 1, True), Segment(2, 0, False)])
    assert label_map(panoptic).tolist() == [[VOID, 1, 0]]
    assert label_map(Result((1, 1), instances=[])) is None


def objects(*rows):
    """One object of each row: label, score, first and last column of its mask."""
    instances = []
    for label, score, start, stop in rows:
        mask = np.zeros((1, 20), np.uint8)
        mask[:, start:stop] = 1
        instances.append(Instance(label, score, (start, 0, stop, 1), mask_utils.encode(np.asfortranarray(mask))))
    return Result((1, 20), instances=instances)


def test_objects_find_one_partner_each():
    confusion = Confusion(['a', 'b'], score_thr=0.5)
    truth = objects((0, None, 0, 4), (1, None, 6, 10), (1, None, 12, 16))
    confusion.add(objects((0, 0.9, 0, 4), (1, 0.8, 0, 4), (0, 0.7, 6, 10), (1, 0.4, 12, 16)), truth)
    assert confusion.unit == 'objects'
    assert confusion.counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    confusion.add(objects(), objects((0, None, 0, 4)))
    confusion.add(objects((1, 0.9, 0, 4)), objects())
    assert confusion.counts.tolist() == [[1, 0, 1], [1, 0, 1], [0, 2, 0]]


def test_nothing_without_truth():
    confusion = Confusion(['a'])
    confusion.add(maps([0]), Result((1, 1)))
    assert not confusion.counts.any()
