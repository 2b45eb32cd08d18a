"""The command ``knet data``."""

import sys
from types import ModuleType, SimpleNamespace

import own_data
import pytest

from knet_plugin import cli


@pytest.fixture
def data(tmp_path):
    pictures = own_data.make_pictures()
    own_data.write_images(tmp_path / 'images', pictures)
    for picture in pictures:
        own_data.write_png(tmp_path / f'masks/{picture.stem}_mask.png', picture.ids())
    return tmp_path


@pytest.fixture
def knet(capsys, data, monkeypatch):
    """Run ``knet data ARGUMENTS`` in the folder of ``data``; gives its exit status, output and errors."""

    def knet(*arguments):
        monkeypatch.chdir(data)
        monkeypatch.setattr(sys, 'argv', sys.argv)
        with pytest.raises(SystemExit) as exited:
            cli.main(['data', *arguments])
        return (exited.value.code, *capsys.readouterr())

    return knet


def test_prepare(knet, data):
    status, output, _ = knet('prepare', 'images', 'masks', '-o', 'data/ped', '--classes', 'person',
                             '--stuff', 'background')
    assert status == 0
    assert (data / 'data/ped/data.yml').is_file()
    for words in ('instance-masks', '4 images in train', '16 objects in train, 4 objects in val',
                  'knet train --data data/ped --task panoptic'):
        assert words in output
    assert 'warning' not in output


def test_faults_are_one_line(knet):
    status, output, errors = knet('prepare', 'images', 'mask', '-o', 'data/ped', '--classes', 'person')
    assert (status, output) == (1, '')
    assert errors == 'error: mask: no such file or folder\n'


@pytest.mark.parametrize(('options', 'named'), [(['--val', '1.5'], '1.5'), (['--seed', '-1'], '-1'),
                                                (['--val', '0.2', '--val-images', 'images'], '--val')])
def test_options(knet, options, named):
    status, _, errors = knet('prepare', 'images', 'masks', '-o', 'data/ped', '--classes', 'person', *options)
    assert status == 1 and named in errors


def test_separate_validation(knet, data):
    pictures = own_data.make_pictures(3, seed=1)
    for picture in pictures:
        picture.name = f'new/{picture.name}'
        own_data.write_png(data / f'val_masks/{picture.stem}.png', picture.ids())
    own_data.write_images(data / 'val_images', pictures)
    status, output, _ = knet('prepare', 'images', 'masks', '-o', 'ped', '--classes', 'person',
                             '--val-images', 'val_images', '--val-annotations', 'val_masks')
    assert status == 0 and '5 images in train, 3 images in val' in output


def test_classes_from_a_file(knet, data):
    (data / 'names.txt').write_text('person\n\n')
    status, output, _ = knet('prepare', 'images', 'masks', '-o', 'ped', '--classes', 'names.txt')
    assert status == 0 and '  person ' in output


def test_new_split_of_divided_data(knet, data):
    for name in ('images', 'masks'):
        files = sorted(path for path in (data / name).rglob('*') if path.is_file())
        for split, chosen in (('train', files[:3]), ('val', files[3:])):
            (data / name / split).mkdir()
            for file in chosen:
                file.rename(data / name / split / file.name)
    arguments = ('prepare', 'images', 'masks', '--classes', 'person', '-o')
    assert '3 images in train, 2 images in val' in knet(*arguments, 'ped')[1]
    _, output, _ = knet(*arguments, 'other', '--val', '0.2')
    assert 'warning: --val' in output and '4 images in train, 1 images in val' in output


def test_check_of_nothing(knet):
    for path in ('images', 'nothing'):
        status, _, errors = knet('check', path)
        assert status == 1 and errors.startswith('error: ') and path in errors


@pytest.mark.parametrize(('path', 'function'), [('ped', 'check_data'), ('ped/data.yml', 'check_data'),
                                                ('run.py', 'check_config')])
@pytest.mark.parametrize('errors', [[], ['fault']])
def test_check(knet, data, monkeypatch, path, function, errors):
    (data / 'ped').mkdir()
    (data / 'ped/data.yml').touch()
    (data / 'run.py').write_text('a = 1')
    report = SimpleNamespace(errors=errors, text=lambda: f'report of {function}')
    module = ModuleType('check')
    setattr(module, function, lambda given: report)
    setattr(module, {'check_data': 'check_config', 'check_config': 'check_data'}[function], None)
    monkeypatch.setitem(sys.modules, 'knet_plugin.datasets.check', module)
    status, output, _ = knet('check', path)
    assert (status, output) == (int(bool(errors)), f'report of {function}\n')
