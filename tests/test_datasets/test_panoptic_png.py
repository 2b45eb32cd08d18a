"""Segment ids in every kind of PNG, in the reader, in training, evaluation and the preparation."""

import numpy as np
import pytest
from odd_data import odd_data, segment_map
from PIL import Image
from test_metrics import panoptic_quality
from test_panoptic import check_content, load

from knet_plugin.datasets.panoptic_png import read_segment_ids
from knet_plugin.datasets.prepare import Options, find_sources, prepare

PALETTE = list(np.random.default_rng(0).integers(0, 255, 768))


def grey(ids):
    return Image.fromarray(ids.astype(np.uint8))


def deep(ids):
    return Image.fromarray(ids.astype(np.uint16))


def palette(ids):
    picture = Image.fromarray(ids.astype(np.uint8), 'P')
    picture.putpalette(PALETTE)
    return picture


def colours(ids):
    return Image.fromarray(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8))


def few_colours(ids):
    return colours(ids).quantize()


@pytest.mark.parametrize('write', [grey, deep, palette, colours, few_colours])
def test_all_kinds(tmp_path, write):
    root = odd_data(tmp_path / 'data')
    for index in range(4):
        path = root / f'png/{index}.png'
        ids, categories = segment_map(index)
        write(ids).save(path)
        assert np.array_equal(read_segment_ids(str(path), list(categories)), ids)
    check_content(load(root))
    assert panoptic_quality(root)['PQ'] == 100
    prepared = prepare(find_sources(root / 'images', root / 'panoptic.json'), tmp_path / 'out', Options())
    assert sum(counts['cat'] for counts in prepared.counts.values()) == 4


def test_ids_above_255(tmp_path):
    ids = np.array([[1, 300, 70_000]])
    colours(ids).save(tmp_path / 'a.png')
    deep(ids[:, :2]).save(tmp_path / 'b.png')
    assert read_segment_ids(str(tmp_path / 'a.png'), [300]).tolist() == ids.tolist()
    assert read_segment_ids(str(tmp_path / 'b.png'), [300]).tolist() == ids[:, :2].tolist()
