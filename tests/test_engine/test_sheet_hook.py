"""Sheets of validation pictures."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from knet_plugin.engine.sheet_hook import SheetHook

META = dict(classes=('cat', 'road'), thing_classes=('cat',))


class Masks(list):
    """The part of mmdet's ``BitmapMasks`` that is needed."""

    def to_ndarray(self) -> np.ndarray:
        return np.array(self, np.uint8)


def sample(task: str, size: tuple[int, int] = (40, 60)) -> BaseDataElement:
    element = BaseDataElement(metainfo=dict(ori_shape=size, img_shape=size))
    labels = torch.zeros(1, *size, dtype=torch.long)
    labels[:, :20] = 1
    if task == 'semantic':
        element.gt_sem_seg = PixelData(data=labels)
        element.pred_sem_seg = PixelData(data=1 - labels)
    else:
        masks = np.zeros((2, *size), bool)
        masks[0, :10], masks[1, 30:] = True, True
        element.gt_instances = InstanceData(masks=Masks(masks), labels=torch.zeros(2, dtype=torch.long))
        element.pred_instances = InstanceData(masks=torch.from_numpy(masks), labels=torch.zeros(2, dtype=torch.long),
                                              scores=torch.tensor([0.9, 0.1]), bboxes=torch.zeros(2, 4))
    return element


def runner(tmp_path, batches: int, batch_size: int = 2, rank: int = 0):
    class Loader(list):
        pass

    loader = Loader(range(batches))
    loader.batch_size, loader.dataset = batch_size, SimpleNamespace(metainfo=META)
    return SimpleNamespace(val_dataloader=loader, work_dir=tmp_path, iter=7, rank=rank)


def validate(hook: SheetHook, run, samples: list) -> None:
    for i in range(len(run.val_dataloader)):
        part = samples[2 * i:2 * i + 2]
        hook.after_val_iter(run, i, dict(inputs=[torch.full((3, 20, 30), 100, dtype=torch.uint8) for _ in part]), part)
    hook.after_val_epoch(run, {})


def test_no_object_above_the_threshold_is_said(tmp_path):
    run = runner(tmp_path, 1)
    pictures = []
    for score_thr in (0.95, 0.99):
        hook = SheetHook(images=1, score_thr=score_thr)
        photo = torch.full((3, 40, 60), 100, dtype=torch.uint8)
        hook.after_val_iter(run, 0, dict(inputs=[photo]), [sample('instances')])
        pictures.append(hook._rows[0][2])
    assert (pictures[0] != 100).any() and (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize('task', ['semantic', 'instances'])
def test_sheet(task, tmp_path):
    run = runner(tmp_path, 4)
    validate(SheetHook(images=3), run, [sample(task) for _ in range(7)])
    picture = cv2.imread(str(tmp_path / 'sheet_7.jpg'))
    assert picture.shape[0] > 3 * 300 and picture.shape[1] == 1600
    third = picture.shape[1] // 3
    photo, truth, found = (picture[60:, i * third + 20:(i + 1) * third - 20].astype(int) for i in range(3))
    assert abs(photo - 100).mean() < 15 < min(abs(truth - 100).mean(), abs(truth - found).mean())


def test_the_images_are_fixed_and_spread(tmp_path, monkeypatch):
    from knet_plugin.engine import sheet_hook

    rows: list = []
    monkeypatch.setattr(sheet_hook, '_row', lambda photo, sample, meta, score_thr: rows.append(sample) or [photo])
    samples = [sample('semantic') for _ in range(12)]
    hook, run = SheetHook(images=3), runner(tmp_path, 6)
    for _ in range(2):
        validate(hook, run, samples)
    assert [samples.index(each) for each in rows] == [0, 4, 8, 0, 4, 8]


def test_other_processes_draw_nothing(tmp_path):
    validate(SheetHook(), runner(tmp_path, 2, rank=1), [sample('semantic') for _ in range(4)])
    assert not list(tmp_path.iterdir())


def test_a_sample_that_cannot_be_drawn_stops_no_training(tmp_path, capsys):
    hook = SheetHook()
    for _ in range(2):
        validate(hook, runner(tmp_path, 2), [torch.zeros(1) for _ in range(4)])
    assert not list(tmp_path.iterdir())


def test_image_of_many_channels(tmp_path):
    run = runner(tmp_path, 1)
    inputs = [torch.rand(5, 40, 60), torch.rand(1, 20, 30)]
    hook = SheetHook()
    hook.after_val_iter(run, 0, dict(inputs=inputs), [sample('semantic')] * 2)
    hook.after_val_epoch(run, {})
    assert (tmp_path / 'sheet_7.jpg').is_file()
