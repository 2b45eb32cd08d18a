"""Sheets of validations, and pictures of a test."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from picture_cases import CLASSES, photo

from knet_plugin.inference.picture_hooks import PictureHook, SheetHook, picture_files
from knet_plugin.registry import HOOKS

SIZE = (30, 40)
LOAD = dict(type='LoadImageFromFile')


class Masks(list):
    """The part of mmdet's ``BitmapMasks`` that is needed."""

    def to_ndarray(self) -> np.ndarray:
        return np.array(self, np.uint8)


class Data(list):
    metainfo = dict(classes=CLASSES, thing_classes=CLASSES[:2], palette='random')

    def get_data_info(self, index: int) -> dict:
        return dict(img_path=self[index])


def make_runner(folder: Path, names: list[str], batch_size: int = 1, load: dict = LOAD,
                image: np.ndarray | None = None) -> SimpleNamespace:
    paths = [str(folder / 'images' / name) for name in names]
    for path in paths:
        mmcv.imwrite(photo(*SIZE) if image is None else image, path)

    class Loader(list):
        dataset = Data(paths)

    loader = Loader(range(-(-len(paths) // batch_size)))
    loader.batch_size = batch_size
    data = Config(dict(dataset=dict(pipeline=[load])))
    return SimpleNamespace(work_dir=str(folder), iter=7, rank=0, cfg=Config(dict(
        test_dataloader=data, val_dataloader=data)), test_loop=SimpleNamespace(dataloader=loader),
        val_dataloader=loader)


def sample(path: str, task: str = 'semantic') -> BaseDataElement:
    element = BaseDataElement(metainfo=dict(img_path=path, ori_shape=SIZE, img_shape=SIZE))
    labels = torch.zeros(1, *SIZE, dtype=torch.long)
    labels[:, :20] = 1
    if task == 'semantic':
        return element.new(gt_sem_seg=PixelData(data=labels), pred_sem_seg=PixelData(data=1 - labels))
    masks = np.zeros((2, *SIZE), bool)
    masks[0, :10], masks[1, 20:] = True, True
    things = dict(labels=torch.zeros(2, dtype=torch.long))
    return element.new(gt_instances=InstanceData(masks=Masks(masks), **things), pred_instances=InstanceData(
        masks=torch.from_numpy(masks), scores=torch.tensor([0.9, 0.1]), bboxes=torch.zeros(2, 4), **things))


def validate(hook: SheetHook, runner: SimpleNamespace, task: str = 'semantic') -> None:
    paths, size = runner.val_dataloader.dataset, runner.val_dataloader.batch_size
    for i in range(len(runner.val_dataloader)):
        hook.after_val_iter(runner, i, None, [sample(path, task) for path in paths[size * i:size * i + size]])
    hook.after_val_epoch(runner, {})


@pytest.mark.parametrize('task', ['semantic', 'instances'])
def test_sheet(task: str, tmp_path: Path) -> None:
    validate(SheetHook(images=3), make_runner(tmp_path, [f'{i}.png' for i in range(7)], 2), task)
    page = cv2.imread(str(tmp_path / 'sheet_7.jpg')).astype(int)
    assert page.shape[0] > 3 * 300 and page.shape[1] == 1600
    image, truth, found = (page[60:, i * 533 + 20:(i + 1) * 533 - 20] for i in range(3))
    assert min(abs(truth - image).mean(), abs(truth - found).mean()) > 5


def test_the_images_of_a_sheet_are_fixed_and_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list = []
    monkeypatch.setattr(SheetHook, '_draw', lambda self, runner, sample: drawn.append(sample.img_path) or photo(9, 9))
    runner = make_runner(tmp_path, [f'{i:02}.png' for i in range(12)], 2)
    hook = SheetHook(images=3)
    for _ in range(2):
        validate(hook, runner)
    assert [Path(path).stem for path in drawn] == 2 * ['00', '04', '08']


def test_other_processes_draw_no_sheet(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, ['a.png'])
    runner.rank = 1
    validate(SheetHook(), runner)
    assert not list(tmp_path.glob('*.jpg'))


def test_an_image_that_cannot_be_drawn_stops_no_training(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, ['a.png'])
    Path(runner.val_dataloader.dataset[0]).unlink()
    for _ in range(2):
        validate(SheetHook(), runner)
    assert not list(tmp_path.glob('*.jpg'))


def run_test(hook: PictureHook, runner: SimpleNamespace) -> list[str]:
    hook.before_test(runner)
    for number, path in enumerate(runner.test_loop.dataloader.dataset):
        hook.after_test_iter(runner, number, None, [sample(path)])
    hook.after_test(runner)
    folder = Path(runner.work_dir, 'pictures')
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.jpg'))


def test_pictures_are_named_like_the_images(tmp_path: Path) -> None:
    hook = HOOKS.build(dict(type='knet_plugin.PictureHook'))
    assert run_test(hook, make_runner(tmp_path, ['a.png', 'sub/b.png'])) == ['a.jpg', 'b.jpg']
    assert mmcv.imread(tmp_path / 'pictures/a.jpg').shape == (*SIZE, 3)
    assert (mmcv.imread(tmp_path / 'pictures/a.jpg') != photo(*SIZE)).any()


def test_images_of_one_name_keep_their_folders(tmp_path: Path) -> None:
    assert run_test(PictureHook(), make_runner(tmp_path, ['x/a.png', 'y/a.png'])) == ['x/a.jpg', 'y/a.jpg']


def test_16_bit_images_are_drawn(tmp_path: Path) -> None:
    image = np.arange(1200, dtype=np.uint16).reshape(SIZE)
    runner = make_runner(tmp_path, ['a.png'], load=dict(LOAD, color_type='unchanged'), image=image)
    assert run_test(PictureHook(), runner) == ['a.jpg']


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match='what.*boxes'):
        PictureHook(what='boxes')


def test_picture_files() -> None:
    assert picture_files([]) == {}
    assert picture_files(['d/a.png', 'd/b.jpeg', 'd/b.jpeg']) == {'d/a.png': Path('a.jpg'), 'd/b.jpeg': Path('b.jpg')}
    assert picture_files(['d/a.png', 'd/a.tif', 'd/e/a.png']) == {
        'd/a.png': Path('a.png.jpg'), 'd/a.tif': Path('a.tif.jpg'), 'd/e/a.png': Path('e/a.jpg')}
    assert picture_files(['a.v1.png', 'a.v2.png']) == {'a.v1.png': Path('a.v1.jpg'), 'a.v2.png': Path('a.v2.jpg')}
