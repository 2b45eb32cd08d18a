"""Written files say what the results say."""

import json

import cv2
import numpy as np
import pycocotools.mask as mask_utils
from pycocotools.coco import COCO

from knet_plugin.inference.inputs import Frame, Source
from knet_plugin.inference.outputs import PictureWriter, ResultWriter
from knet_plugin.visualization import VOID, Instance, Result, Segment

CLASSES = ('cat', 'dög', 'sky')


def frame(name='sub/ü', number=None):
    return Frame(Source(None, f'{name}.png', name, number is not None), np.zeros((4, 6, 3), np.uint8), number, 10.)


def result():
    masks = np.zeros((2, 4, 6), np.uint8)
    masks[0, 1:3, 2:5] = masks[1, 0, :2] = 1
    encodings = [mask_utils.encode(np.asfortranarray(mask)) for mask in masks]
    panoptic = np.zeros((4, 6), np.int32)
    panoptic[1:3, 2:5], panoptic[3] = 300, 2
    semantic = np.full((4, 6), VOID, np.uint8)
    semantic[3] = 2
    return Result((4, 6), panoptic, [Segment(300, 1, True, 0.5), Segment(2, 2, False), Segment(7, 0, True, 0.9)],
                  [Instance(1, 0.75, (2, 1, 5, 3), encodings[0]), Instance(0, 0.125, (0, 0, 2, 1), encodings[1])],
                  semantic)


def write(folder, *results, score_thr=0.):
    with ResultWriter(folder, CLASSES, 2, score_thr) as writer:
        for i, each in enumerate(results):
            writer.add(frame(f'sub/ü{i}'), each)
    return folder


def test_coco_file_read_by_pycocotools(tmp_path):
    coco = COCO(write(tmp_path, result(), result()) / 'instances.json')
    assert [coco.imgs[i]['file_name'] for i in (1, 2)] == ['sub/ü0.png', 'sub/ü1.png']
    assert {each['id']: each['name'] for each in coco.cats.values()} == {1: 'cat', 2: 'dög'}
    assert len(coco.anns) == 4
    for annotation, expected in zip(coco.imgToAnns[2], result().instances, strict=True):
        assert annotation['category_id'] == expected.label + 1 and annotation['score'] == expected.score
        assert np.array_equal(coco.annToMask(annotation), mask_utils.decode(expected.mask))
        x, y, width, height = annotation['bbox']
        assert (x, y, x + width, y + height) == expected.box and annotation['area'] == mask_utils.area(expected.mask)


def test_objects_below_the_threshold_are_left_out(tmp_path):
    content = json.loads((write(tmp_path, result(), score_thr=0.5) / 'instances.json').read_text())
    assert [annotation['score'] for annotation in content['annotations']] == [0.75]


def test_panoptic_file_and_its_png(tmp_path):
    content = json.loads((write(tmp_path, result()) / 'panoptic.json').read_text())
    assert [category['isthing'] for category in content['categories']] == [1, 1, 0]
    entry, = content['annotations']
    image = cv2.imread(str(tmp_path / 'panoptic' / entry['file_name']))[..., ::-1].astype(int)
    assert np.array_equal(image @ [1, 256, 65536], result().panoptic)
    first, second = entry['segments_info']  # the third has no pixels
    assert first == dict(id=300, category_id=2, iscrowd=0, area=6, bbox=[2, 1, 3, 2], score=0.5)
    assert second == dict(id=2, category_id=3, iscrowd=0, area=6, bbox=[0, 3, 6, 1])


def test_label_maps_and_names(tmp_path):
    wide = Result((4, 6), semantic=np.full((4, 6), 300, np.int32))
    folder = write(tmp_path, result(), wide)
    for i, expected in enumerate((result(), wide)):
        assert np.array_equal(cv2.imread(str(folder / f'labels/sub/ü{i}.png'), -1), expected.semantic)
    assert (folder / 'classes.txt').read_text(encoding='utf-8').split() == list(CLASSES)


def test_an_error_keeps_what_there_is(tmp_path):
    try:
        with ResultWriter(tmp_path, CLASSES, 2) as writer:
            writer.add(frame(), result())
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert len(json.loads((tmp_path / 'instances.json').read_text())['annotations']) == 2


def test_pictures_of_several_kinds(tmp_path):
    writer = PictureWriter(tmp_path)
    picture = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    writer.add(frame(), {'': picture, '_instances': picture})
    writer.close()
    assert writer.written == [tmp_path / 'sub/ü.jpg', tmp_path / 'sub/ü_instances.jpg']
    written = cv2.imdecode(np.frombuffer(writer.written[0].read_bytes(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(written.astype(int) - picture).max() < 8


def test_one_video_ends_where_the_next_begins(tmp_path):
    writer = PictureWriter(tmp_path)
    for name in ('a', 'b'):
        for number in range(2):
            writer.add(frame(name, number), {'': np.zeros((32, 32, 3), np.uint8)})
    writer.close()
    assert [path.name for path in writer.written] == ['a.mp4', 'b.mp4']
    assert [int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)) for path in writer.written] == [2, 2]
