from pathlib import Path
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, PixelData
from picture_cases import CLASSES, photo

from knet_plugin.registry import HOOKS
from knet_plugin.visualization.picture_hook import PictureHook, picture_files


def _read(results: dict) -> dict:
    return {**results, 'img': mmcv.imread(results['img_path'])}


def _runner(folder: Path, names: list[str]) -> SimpleNamespace:
    paths = []
    for name in names:
        mmcv.imwrite(photo(30, 40), str(folder / 'images' / name))
        paths.append(str(folder / 'images' / name))

    class _Data(list):
        metainfo = dict(classes=CLASSES, palette='random')
        pipeline = SimpleNamespace(transforms=[_read])

        def get_data_info(self, index: int) -> dict:
            return dict(img_path=self[index])

    dataloader = SimpleNamespace(dataset=_Data(paths))
    return SimpleNamespace(work_dir=str(folder), test_loop=SimpleNamespace(dataloader=dataloader))


def _samples(runner: SimpleNamespace) -> list[BaseDataElement]:
    return [BaseDataElement(metainfo=dict(img_path=path, ori_shape=(30, 40), img_shape=(30, 40)),
                            pred_sem_seg=PixelData(data=torch.ones(1, 30, 40, dtype=torch.long)))
            for path in runner.test_loop.dataloader.dataset]


def _test(hook: PictureHook, runner: SimpleNamespace) -> list[str]:
    hook.before_test(runner)
    for number, sample in enumerate(_samples(runner)):
        hook.after_test_iter(runner, number, None, [sample])
    hook.after_test(runner)
    folder = Path(runner.work_dir, 'pictures')
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.jpg'))


def test_pictures_are_named_like_the_images(tmp_path: Path) -> None:
    hook = HOOKS.build(dict(type='knet_plugin.PictureHook'))
    assert _test(hook, _runner(tmp_path, ['a.png', 'sub/b.png'])) == ['a.jpg', 'b.jpg']
    assert mmcv.imread(str(tmp_path / 'pictures/a.jpg')).shape == (30, 40, 3)
    assert (mmcv.imread(str(tmp_path / 'pictures/a.jpg')) != photo(30, 40)).any()


def test_images_of_one_name_keep_their_folders(tmp_path: Path) -> None:
    assert _test(PictureHook(), _runner(tmp_path, ['x/a.png', 'y/a.png'])) == ['x/a.jpg', 'y/a.jpg']


def test_16_bit_images_are_drawn(tmp_path: Path) -> None:
    runner = _runner(tmp_path, ['a.png'])
    runner.test_loop.dataloader.dataset.pipeline.transforms[0] = lambda results: {
        'img': np.arange(1200, dtype=np.uint16).reshape(30, 40)}
    assert _test(PictureHook(), runner) == ['a.jpg']


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match='what.*boxes'):
        PictureHook(what='boxes')


def test_picture_files() -> None:
    assert picture_files([]) == {}
    assert picture_files(['d/a.png', 'd/b.jpeg', 'd/b.jpeg']) == {'d/a.png': Path('a.jpg'), 'd/b.jpeg': Path('b.jpg')}
    assert picture_files(['d/a.png', 'd/a.tif', 'd/e/a.png']) == {
        'd/a.png': Path('a.png.jpg'), 'd/a.tif': Path('a.tif.jpg'), 'd/e/a.png': Path('e/a.jpg')}
    assert picture_files(['a.v1.png', 'a.v2.png']) == {'a.v1.png': Path('a.v1.jpg'), 'a.v2.png': Path('a.v2.jpg')}
