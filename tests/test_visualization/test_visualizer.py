import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mmcv
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmengine.visualization import Visualizer as HostVisualizer
from picture_cases import CLASSES, cells, photo

from knet_plugin import compat
from knet_plugin.registry import VISUALIZERS
from knet_plugin.visualization.visualizer import Visualizer

META = dict(classes=CLASSES, thing_classes=CLASSES[:2], stuff_classes=CLASSES[2:], palette='random')
needs_mmdet = pytest.mark.skipif(not compat.installed('mmdet'), reason='needs mmdet')
needs_mmseg = pytest.mark.skipif(not compat.installed('mmseg'), reason='needs mmseg')
SIZE = (60, 90)
_NUMBERS = itertools.count()


def _visualizer(meta: dict[str, Any] = META, **options: Any) -> Visualizer:
    made = VISUALIZERS.build(dict(type='knet_plugin.Visualizer', name=f'picture-{next(_NUMBERS)}', **options))
    made.dataset_meta = meta
    return made


def _panoptic_sample(void: bool = False, truth: bool = False) -> BaseDataElement:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    ids = torch.from_numpy(cells(6, *SIZE)).long()
    panoptic = torch.full(SIZE, len(CLASSES)) if void else ids % 4 + 1000 * ids
    sample = DetDataSample(metainfo=dict(ori_shape=SIZE, img_shape=SIZE, img_path='photos/street.png'))
    sample.pred_panoptic_seg = PixelData(sem_seg=panoptic[None])
    if truth:
        sample.gt_instances = InstanceData(labels=torch.tensor([1]),
                                           masks=BitmapMasks(np.ones((1, *SIZE), np.uint8), *SIZE))
        sample.gt_sem_seg = PixelData(sem_seg=torch.ones(1, *SIZE, dtype=torch.long))
    return sample


def _instance_sample(score: float = 0.9) -> BaseDataElement:
    from mmdet.structures import DetDataSample

    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    masks[0, 10:50, 10:40] = masks[1, 10:50, 50:80] = True
    sample = DetDataSample(metainfo=dict(ori_shape=SIZE, img_shape=SIZE, img_path='photos/street.png'))
    sample.pred_instances = InstanceData(labels=torch.tensor([0, 1]), scores=torch.tensor([score, score]), masks=masks,
                                         bboxes=torch.tensor([[10., 10, 40, 50], [50, 10, 80, 50]]))
    return sample


def _semantic_sample() -> BaseDataElement:
    from mmseg.structures import SegDataSample

    labels = torch.from_numpy(cells(4, *SIZE)).long()[None] - 1
    return SegDataSample(metainfo=dict(ori_shape=SIZE, img_shape=SIZE, img_path='photos/street.png'),
                         pred_sem_seg=PixelData(data=labels), gt_sem_seg=PixelData(data=labels))


def test_is_a_visualizer_of_the_hosts() -> None:
    assert isinstance(_visualizer(), HostVisualizer)
    if compat.installed('mmseg'):
        from mmseg.visualization import SegLocalVisualizer
        assert isinstance(_visualizer(), SegLocalVisualizer)
    with pytest.raises(ValueError, match='boxes'):
        _visualizer(what='boxes')


@needs_mmdet
def test_truth_is_left_and_prediction_right(tmp_path: Path) -> None:
    visualizer = _visualizer()
    file = str(tmp_path / 'a' / 'b.png')
    visualizer.add_datasample('street', photo(*SIZE), _panoptic_sample(truth=True), out_file=file)
    drawn = visualizer.get_image()
    assert drawn.shape[1] > 2 * SIZE[1]
    np.testing.assert_array_equal(mmcv.imread(file)[..., ::-1], drawn)
    visualizer.add_datasample('street', photo(*SIZE), _panoptic_sample(truth=True), draw_gt=False)
    np.testing.assert_array_equal(visualizer.get_image(), drawn[:, -SIZE[1]:])
    visualizer.add_datasample('street', photo(*SIZE), _panoptic_sample(truth=True), draw_pred=False)
    np.testing.assert_array_equal(visualizer.get_image(), drawn[:, :SIZE[1]])


@needs_mmdet
@pytest.mark.parametrize('kind, line', [('void', '0 objects'), ('low', '0 of 2 above 0.30; best 0.20')])
def test_a_prediction_with_nothing_to_draw_says_so(kind: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr(MMLogger, 'info', lambda _, message: messages.append(message))
    visualizer = _visualizer()
    sample = _panoptic_sample(void=True) if kind == 'void' else _instance_sample(0.2)
    visualizer.add_datasample('street', photo(*SIZE), sample)
    assert messages == [f'street: {line}']
    drawn = visualizer.get_image()
    assert (drawn[:20] == photo(*SIZE)[:20]).all()
    assert (drawn[-20:] != photo(*SIZE)[-20:]).any()


@needs_mmdet
def test_without_sample_classes_or_size_of_the_image() -> None:
    visualizer = _visualizer({})
    visualizer.add_datasample('street', photo(*SIZE))
    np.testing.assert_array_equal(visualizer.get_image(), photo(*SIZE))
    bare = _instance_sample()
    sample = type(bare)(pred_instances=bare.pred_instances)
    visualizer.add_datasample('street', photo(*SIZE), sample)
    assert (visualizer.get_image() != photo(*SIZE)).any()
    assert 'ori_shape' not in sample.metainfo


@needs_mmdet
def test_hook_of_mmdet(tmp_path: Path) -> None:
    from mmdet.engine.hooks import DetVisualizationHook

    mmcv.imwrite(photo(*SIZE), str(tmp_path / 'photos/street.png'))
    name = f'hook-{tmp_path.name}'
    visualizer = Visualizer.get_instance(name)
    visualizer.dataset_meta = META
    hook = DetVisualizationHook(draw=True, test_out_dir='pictures', score_thr=0.5)
    hook._visualizer = visualizer
    runner = SimpleNamespace(work_dir=str(tmp_path), timestamp='now', iter=50)
    sample = _panoptic_sample()
    sample.set_metainfo(dict(img_path=str(tmp_path / 'photos/street.png')))
    hook.after_test_iter(runner, 0, {}, [sample])
    hook.after_val_iter(runner, 0, {}, [sample])
    assert mmcv.imread(str(tmp_path / 'now/pictures/street.png')).shape == (*SIZE, 3)


@needs_mmseg
def test_hook_of_mmseg(tmp_path: Path) -> None:
    from mmseg.engine.hooks import SegVisualizationHook

    mmcv.imwrite(photo(*SIZE), str(tmp_path / 'street.png'))
    visualizer = Visualizer.get_instance(f'hook-{tmp_path.name}', save_dir=str(tmp_path),
                                         vis_backends=[dict(type='LocalVisBackend')])
    visualizer.dataset_meta = META
    hook = SegVisualizationHook(draw=True, interval=1)
    hook._visualizer = visualizer
    sample = _semantic_sample()
    sample.set_metainfo(dict(img_path=str(tmp_path / 'street.png')))
    runner = SimpleNamespace(iter=0)
    for phase in ('test', 'val'):
        getattr(hook, f'after_{phase}_iter')(runner, 0, {}, [sample])
    assert len(list(tmp_path.rglob('vis_image/*street*'))) == 2


@needs_mmdet
def test_inferencer_of_mmdet(tmp_path: Path) -> None:
    from mmdet.apis import DetInferencer

    inferencer = SimpleNamespace(visualizer=_visualizer(), num_visualized_imgs=0)
    pictures = DetInferencer.visualize(inferencer, [photo(*SIZE)], [_instance_sample()], return_vis=True,
                                       img_out_dir=str(tmp_path))
    np.testing.assert_array_equal(pictures[0], inferencer.visualizer.get_image())
    assert (tmp_path / 'vis/00000000.jpg').is_file()


@needs_mmseg
def test_inferencer_of_mmseg(tmp_path: Path) -> None:
    from mmseg.apis import MMSegInferencer

    inferencer = SimpleNamespace(visualizer=_visualizer({}), num_visualized_imgs=0,
                                 model=SimpleNamespace(dataset_meta=dict(classes=CLASSES, palette=None)))
    inferencer.visualizer.set_dataset_meta(None, None, None)
    pictures = MMSegInferencer.visualize(inferencer, [photo(*SIZE)], [_semantic_sample()], return_vis=True,
                                         img_out_dir=str(tmp_path))
    assert (pictures[0] != photo(*SIZE)).any()
    assert inferencer.visualizer.dataset_meta['classes'] == CLASSES


@needs_mmseg
def test_classes_of_a_data_set_of_mmseg() -> None:
    visualizer = _visualizer({})
    visualizer.set_dataset_meta(dataset_name='cityscapes')
    assert visualizer.dataset_meta['classes'][0] == 'road'
    assert len(visualizer.dataset_meta['palette']) == 19
