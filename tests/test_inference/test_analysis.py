"""What is wrong with the objects that a model does not find."""

import csv

import cv2
import numpy as np
import pycocotools.mask as mask_utils
import pytest

from knet_plugin.inference.analysis import KINDS, Analysis, boundary_iou
from knet_plugin.visualization import VOID, Instance, Result, Segment

CLASSES = ('cat', 'dog')
SIZE = (40, 60)


def box(rows, columns):
    mask = np.zeros(SIZE, np.uint8)
    mask[slice(*rows), slice(*columns)] = 1
    return mask


def instances(*objects, score=0.9):
    return Result(SIZE, instances=[Instance(label, score, (0, 0, 1, 1), mask_utils.encode(np.asfortranarray(mask)))
                                   for label, mask in objects])


def kinds(result, truth):
    analysis = Analysis(CLASSES)
    analysis.add('a', result, truth)
    return [record.kind for record in analysis.records]


LEFT, RIGHT, BOTH = box((0, 20), (0, 20)), box((0, 20), (20, 40)), box((0, 20), (0, 40))


@pytest.mark.parametrize(('found', 'true', 'expected'), [
    ([(0, LEFT)], [(0, LEFT)], ['found']),
    ([(0, box((0, 20), (0, 16)))], [(0, LEFT)], ['found']),
    ([(1, LEFT)], [(0, LEFT)], ['wrong class', '']),
    ([(0, LEFT), (0, RIGHT)], [(0, BOTH)], ['split', '', '']),
    ([(0, BOTH)], [(0, LEFT), (0, RIGHT)], ['merged', 'merged', '']),
    ([(0, BOTH)], [(0, LEFT), (1, RIGHT)], ['inexact', 'missed', '']),
    ([(0, box((0, 20), (0, 8)))], [(0, LEFT)], ['inexact', '']),
    ([], [(0, LEFT)], ['missed']),
    ([(0, RIGHT)], [], ['false']),
    ([(0, LEFT), (0, LEFT)], [(0, LEFT)], ['found', '']),
    ([], [], []),
])
def test_each_kind(found, true, expected):
    assert kinds(instances(*found), instances(*true)) == expected


def test_objects_with_low_scores_do_not_count():
    assert kinds(instances((0, LEFT), score=0.2), instances((0, LEFT))) == ['missed']


def test_void_does_not_count():
    truth = Result(SIZE, panoptic=LEFT.astype(np.int32), segments=[Segment(1, 0, True)])
    segments = [Segment(1, 0, True), Segment(2, 0, True)]
    both = Result(SIZE, panoptic=(LEFT + 2 * RIGHT).astype(np.int32), segments=segments)
    assert kinds(both, truth) == ['found']
    assert kinds(Result(SIZE, semantic=np.where(LEFT, 0, 1).astype(np.uint8)),
                 Result(SIZE, semantic=np.where(LEFT, 0, VOID).astype(np.uint8))) == ['found']


def test_void_within_a_prediction_takes_nothing_from_its_iou():
    for columns in (50, 30):  # 60 and 33 % of the prediction is void
        found = box((0, 20), (0, columns))
        analysis = Analysis(CLASSES)
        analysis.add('a', Result(SIZE, panoptic=found.astype(np.int32), segments=[Segment(1, 0, True)]),
                     Result(SIZE, panoptic=LEFT.astype(np.int32), segments=[Segment(1, 0, True)]))
        assert [(record.kind, record.iou) for record in analysis.records] == [('found', 1)]


def test_parts_without_truth_are_passed_over():
    assert Analysis(CLASSES).add('a', instances((0, LEFT)), Result(SIZE)) is None


def test_quality_is_the_panoptic_quality(tmp_path):
    """One of three objects is found with an IoU of 0.8, and one prediction is false."""
    analysis = Analysis(CLASSES)
    far = box((30, 40), (50, 60))
    found = [(0, box((0, 20), (0, 16))), (1, far)]
    quality = analysis.add('a', instances(*found), instances((0, LEFT), (0, RIGHT), (1, box((30, 40), (0, 20)))))
    assert quality == pytest.approx(100 * 0.8 / (1 + 1 / 2 + 2 / 2))
    analysis.write(tmp_path)
    with (tmp_path / 'classes.csv').open() as file:
        cat, dog = csv.DictReader(file)
    assert (cat['class'], cat['objects'], cat['found'], cat['missed'], cat['SQ']) == ('cat', '2', '1', '1', '80.0')
    assert (dog['objects'], dog['missed'], dog['false'], dog['PQ']) == ('1', '1', '1', '0.0')
    with (tmp_path / 'sizes.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['size'] for row in rows] == ['small']
    assert sum(int(row[kind]) for row in rows for kind in KINDS) == 4


def test_boundary_iou_looks_at_seams_only():
    disc = cv2.circle(np.zeros((200, 200), np.uint8), (100, 100), 80, 1, -1)
    smaller = cv2.circle(np.zeros((200, 200), np.uint8), (100, 100), 77, 1, -1)
    plain = np.count_nonzero(disc & smaller) / np.count_nonzero(disc | smaller)
    assert boundary_iou(disc, disc) == 1 and boundary_iou(disc, 0 * disc) == 0
    assert boundary_iou(disc, smaller) < plain - 0.3
    assert boundary_iou(disc, smaller) == boundary_iou(smaller, disc)
