"""The command that segments files, on small models."""

import json
import sys

import cv2
import mmcv
import numpy as np
import pytest
from small_predictors import small_run, tool

from knet_plugin.inference.inputs import Frame, Source
from knet_plugin.inference.outputs import PictureWriter

PHOTO = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return small_run('panoptic', tmp_path_factory.mktemp('runs') / 'ped')


@pytest.fixture
def photos(tmp_path):
    for name in ('a.png', 'sub/a.png', 'sub/ü.png'):
        mmcv.imwrite(PHOTO[..., ::-1], tmp_path / 'in' / name)
    return tmp_path / 'in'


def predict(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['predict', *map(str, arguments), '--device', 'cpu'])
    return tool('predict').main()


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def test_one_picture_for_each_image(run, photos, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out'
    assert predict(monkeypatch, run, photos, '-o', out) == 0
    assert files(out) == ['a.jpg', 'sub/a.jpg', 'sub/ü.jpg']
    assert cv2.imread(str(out / 'a.jpg')).shape == PHOTO.shape
    printed = capsys.readouterr().out
    assert 'sub/a.png: 0 of 20 above 0.30; best 0.' in printed and str(out) in printed


def test_all_kinds_and_files(run, photos, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    assert predict(monkeypatch, run, photos / 'a.png', '-o', out, '--what', 'all', '--json', '--score', '0') == 0
    assert files(out) == ['a.jpg', 'a_instances.jpg', 'a_semantic.jpg', 'results/classes.txt',
                          'results/instances.json', 'results/labels/a.png', 'results/panoptic.json',
                          'results/panoptic/a.png']
    assert len(json.loads((out / 'results/instances.json').read_text())['annotations']) == 20


def test_sheet_in_batches(run, photos, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    assert predict(monkeypatch, run, photos, '-o', out, '--sheet', '--batch', '2') == 0
    assert files(out) == ['a.jpg', 'sub/a.jpg', 'sub/ü.jpg']
    height, width, _ = cv2.imread(str(out / 'a.jpg')).shape
    assert width > 3 * height  # four pictures in a row


def test_video(run, tmp_path, monkeypatch):
    writer = PictureWriter(tmp_path)
    for number in range(3):
        writer.add(Frame(Source(tmp_path, 'x', 'film', True), PHOTO, number, 10.), {'': PHOTO})
    writer.close()
    assert predict(monkeypatch, run, tmp_path / 'film.mp4', '-o', tmp_path / 'out', '--json', '--batch', '2') == 0
    video = cv2.VideoCapture(str(tmp_path / 'out/film.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and video.get(cv2.CAP_PROP_FPS) == 10
    content = json.loads((tmp_path / 'out/results/panoptic.json').read_text())
    assert [image['file_name'] for image in content['images']] == [f'film.mp4/00000{i}.jpg' for i in range(3)]


def test_unreadable_files_are_named_at_the_end(run, photos, tmp_path, monkeypatch, capsys):
    (photos / 'bad.jpg').write_bytes(b'no image')
    assert predict(monkeypatch, run, photos, '-o', tmp_path / 'out') == 1
    assert files(tmp_path / 'out') == ['a.jpg', 'sub/a.jpg', 'sub/ü.jpg']
    assert str(photos / 'bad.jpg') in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize('arguments, named', [
    (['missing.jpg'], 'missing.jpg'),
    (['empty'], 'empty'),
    (['a.png', '--checkpoint', 'gone.pth'], 'gone.pth'),
])
def test_errors_are_one_line(arguments, named, run, photos, monkeypatch):
    (photos / 'empty').mkdir()
    monkeypatch.chdir(photos)
    error = predict(monkeypatch, run, *arguments, '-o', 'out')
    assert error.startswith('error: ') and named in error and '\n' not in error
    assert not (photos / 'out').exists()


def test_unknown_kind_and_run(tmp_path, photos, run, monkeypatch):
    error = predict(monkeypatch, tmp_path / 'gone', photos, '-o', tmp_path / 'out')
    assert error.startswith('error: ') and 'gone' in error
    run = small_run('semantic', tmp_path / 'run')
    error = predict(monkeypatch, run, photos, '-o', tmp_path / 'out', '--what', 'instances')
    assert error.startswith('error: ') and 'semantic' in error
