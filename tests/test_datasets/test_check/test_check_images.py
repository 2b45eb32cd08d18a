"""Faults of image files: headers, depth and channels."""

import cv2
import numpy as np
import pytest
from check_data_files import SIDE, edit, instance_config, messages, write_instances
from mmcv.transforms import LoadImageFromFile

from knet_plugin.datasets.check import check_config


@pytest.fixture
def root(tmp_path):
    write_instances(tmp_path)
    return tmp_path


def use(root, suffix, image):
    """Replace all images; returns the config."""
    def rename(data):
        for each in data['images']:
            each['file_name'] = f'{each["id"]}{suffix}'
            cv2.imwrite(str(root / 'images' / each['file_name']), image)

    edit(root, rename)
    return instance_config(root)


def random(highest, channels=1, dtype=np.uint16):
    shape = (SIDE, SIDE, channels) if channels > 1 else (SIDE, SIDE)
    return np.random.default_rng(0).integers(0, highest + 1, shape).astype(dtype)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('channels', [1, 3])
def test_deep_images(root, suffix, channels):
    image = random(4095, channels)
    cfg = use(root, suffix, image)
    report = check_config(cfg)
    assert report.errors == []
    found = messages(report.warnings)
    assert '3 images have 16 bits' in found
    assert '16 grey levels' in found
    loader = cfg.train_dataloader.dataset.pipeline[0]
    loader.update(color_type=3, to_float32=True)  # what the warning recommends
    assert str(loader.color_type) in found
    assert check_config(cfg, ('train', )).warnings == []
    loaded = LoadImageFromFile(color_type=3, to_float32=True).transform(dict(img_path=str(root / f'images/0{suffix}')))
    assert np.array_equal(loaded['img'].reshape(SIDE, SIDE, 3), np.dstack([image] * 3) if channels == 1 else image)


def test_grey_images_are_fine(root):
    assert check_config(use(root, '.png', random(255, dtype=np.uint8))).warnings == []


def test_more_channels(root):
    cfg = use(root, '.png', random(255, 4, np.uint8))
    assert '4 channels' in messages(check_config(cfg).warnings)
    cfg.train_dataloader.dataset.pipeline[0].color_type = 'unchanged'
    assert 'in_channels=3' in messages(check_config(cfg, ('train', )).errors)
    cfg.model.backbone = dict(in_channels=4)
    assert not check_config(cfg, ('train', )).errors


def test_many_channels(root):
    tifffile = pytest.importorskip('tifffile')
    cfg = use(root, '.tif', random(255, dtype=np.uint8))
    image = random(4095, 6)
    for i in range(3):
        tifffile.imwrite(root / f'images/{i}.tif', image, photometric='minisblack', planarconfig='contig')
    found = messages(check_config(cfg).errors)
    assert '3 images cannot be decoded' in found
    assert 'tifffile' in found
    loader = dict(imdecode_backend='tifffile', color_type='unchanged')  # what the error recommends
    cfg.train_dataloader.dataset.pipeline[0].update(loader)
    assert not check_config(cfg, ('train', )).errors
    loaded = LoadImageFromFile(**loader).transform(dict(img_path=str(root / 'images/0.tif')))
    assert np.array_equal(loaded['img'], image)


@pytest.mark.parametrize('content', [b'', b'no image', b'\x89PNG\r\n\x1a\n'])
def test_broken_images(root, content):
    (root / 'images/1.jpg').write_bytes(content)
    assert '1 images cannot be decoded' in messages(check_config(instance_config(root)).errors)


@pytest.mark.parametrize('prefix', ['images', 'images/'])
def test_a_folder_in_another_spelling_is_the_same(root, prefix):
    (root / 'images/1.jpg').write_bytes(b'')
    cfg = instance_config(root)
    cfg.val_dataloader.dataset.update(data_prefix=dict(img=prefix), data_root=str(root))
    error, = check_config(cfg).errors
    assert '1.jpg' in error.message


def test_rotated_images_have_the_size_that_is_shown(root):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    Image.new('RGB', (20, SIDE)).save(root / 'images/0.jpg', exif=exif)
    edit(root, lambda data: data['images'][0].update(width=SIDE, height=20), 'train')
    assert check_config(instance_config(root), ('train', )).errors == []
    edit(root, lambda data: data['images'][0].update(width=20, height=SIDE), 'train')
    assert '(40, 20), not (20, 40)' in messages(check_config(instance_config(root), ('train', )).errors)
