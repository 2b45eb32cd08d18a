"""``tools/train.py --data``: two iterations of each task on a few small images."""

import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from pycocotools import mask as rle

from knet_plugin.cli import resolve_config, resolve_tool
from knet_plugin.datasets.description import DataDescription

SIZE = (48, 64)
TASKS = ('panoptic', 'instance', 'semantic')


def prepared_folder(root: Path, images: int = 3) -> Path:
    """A prepared folder: bright squares on dark ground."""
    for split in ('train', 'val'):
        for folder in (f'images/{split}', f'annotations/panoptic_{split}', f'labels/{split}'):
            (root / folder).mkdir(parents=True)
        instances, panoptic, records = [], [], []
        for number in range(1, images + 1):
            mask = np.zeros(SIZE, np.uint8)
            mask[8:32, 4 * number:4 * number + 24] = 1
            cv2.imwrite(f'{root}/images/{split}/{number}.jpg', np.repeat(60 + 160 * mask[..., None], 3, axis=2))
            cv2.imwrite(f'{root}/labels/{split}/{number}.png', 1 - mask)
            ids = np.zeros((*SIZE, 3), np.uint8)
            ids[..., 2] = 1 + mask  # red comes last in BGR
            cv2.imwrite(f'{root}/annotations/panoptic_{split}/{number}.png', ids)
            records.append(dict(id=number, file_name=f'{number}.jpg', height=SIZE[0], width=SIZE[1]))
            segments = [dict(id=2, category_id=1, iscrowd=0, area=int(mask.sum()), bbox=[4 * number, 8, 24, 24]),
                        dict(id=1, category_id=2, iscrowd=0, area=int((1 - mask).sum()), bbox=[0, 0, 64, 48])]
            panoptic.append(dict(image_id=number, file_name=f'{number}.png', segments_info=segments))
            code = rle.encode(np.asfortranarray(mask))
            instances.append(dict(segments[0], id=number, image_id=number,
                                  segmentation=dict(code, counts=code['counts'].decode())))
        square, ground = dict(id=1, name='square'), dict(id=2, name='ground', isthing=0)
        write(root / f'annotations/instances_{split}.json', records, instances, [square])
        write(root / f'annotations/panoptic_{split}.json', records, panoptic, [dict(square, isthing=1), ground])
    DataDescription(root, 'panoptic', ('square',), ('ground',)).write()
    return root


def write(path: Path, images: list, annotations: list, categories: list) -> None:
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def small_model(task: str, folder: Path) -> Path:
    """A config that narrows our small model."""
    base = str(resolve_config(f'recipe/knet-s3_effnet-lite0_{task}'))
    parts = 'channels=8, norm_cfg=dict(type="GN", num_groups=2))'
    head = (f'decode_head=dict(kernel_generate_head=dict(in_channels=[8] * 4, {parts})' if task == 'semantic' else
            f'panoptic_head=dict(num_stages=1, kernel_head=dict(num_kernels=5, {parts})')
    path = folder / f'model_{task}.py'
    path.write_text(f'_base_ = {base!r}\nmodel = dict(neck=dict(out_channels=8), {head})\n')
    return path


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_folder(tmp_path_factory.mktemp('own') / 'squares')


def run_tool(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> object:
    """Exit status of ``tools/train.py`` in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, 'argv', ['train.py', *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(resolve_tool('tools/train')), run_name='__main__')
    return ended.value.code


@pytest.mark.parametrize('task', TASKS)
def test_two_iterations_of_each_task(task, data, tmp_path, monkeypatch):
    status = run_tool(monkeypatch, tmp_path, '--data', data, '--task', task, '--model', small_model(task, tmp_path),
                      '--weights', 'none', '--iters', 2, '--short-side', 32, '--batch-size', 2,
                      '--cfg-options', 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
                      'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False')
    assert not status
    run = tmp_path / 'work_dirs' / f'squares-{task}'
    assert (run / 'iter_2.pth').is_file() and list(run.glob('best_*.pth'))
    full = Config.fromfile(run / f'squares-{task}.py')
    assert full.train_cfg.max_iters == 2 and full.val_dataloader.dataset.data_root == f'{data}/'


@pytest.mark.parametrize(('arguments', 'named'), [
    (['--data', 'nowhere'], 'nowhere'), (['--data', '{data}', '--weights', 'nothing.pth'], 'nothing.pth'),
    (['--data', '{data}', '--model', 'knet-s3_r51'], '--model knet-s3_r51'),
    (['--data', '{data}', '--iters', '0'], '--iters must be positive, got 0'),
    (['--data', '{data}', '--resume'], 'squares-panoptic'),
    (['--data', '{data}', '--launcher', 'pytorch'], '--launcher pytorch')])
def test_wrong_options_end_with_one_line(arguments, named, data, tmp_path, monkeypatch):
    status = run_tool(monkeypatch, tmp_path, *(word.format(data=data) for word in arguments))
    assert isinstance(status, str) and status.startswith('error: ') and named in status and '\n' not in status
    assert not (tmp_path / 'work_dirs').exists()


def test_weights_that_cannot_be_downloaded(data, tmp_path, monkeypatch):
    def fail(url, path, hash_prefix):
        raise OSError('no route to host')

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', fail)
    status = run_tool(monkeypatch, tmp_path, '--data', data, '--model', 'swin')
    assert status.startswith('error: weights swin-t') and 'no route to host' in status and '\n' not in status
    assert not (tmp_path / 'work_dirs').exists()


def test_swin_gets_its_weights_and_kernels(data, tmp_path, monkeypatch):
    torch.save({'patch_embed.projection.bias': torch.zeros(96)}, tmp_path / 'swin.pth')
    options = ('--model', 'swin', '--weights', 'swin.pth', '--config-only')
    assert run_tool(monkeypatch, tmp_path, '--data', data, *options) == 0
    model = Config.fromfile(tmp_path / 'work_dirs/squares-panoptic.py').model
    assert model.backbone.init_cfg.checkpoint == str(tmp_path / 'swin.pth') and model.backbone.embed_dims == 96
    assert model.panoptic_head.kernel_head.num_kernels == 30


@pytest.mark.parametrize(('arguments', 'named'), [([], '--data'), (['some.py', '--data', 'x'], '--data'),
                                                  (['some.py', '--iters', '3'], '--iters')])
def test_either_a_config_or_data(arguments, named, tmp_path, monkeypatch, capsys):
    assert run_tool(monkeypatch, tmp_path, *arguments) == 2
    assert named in capsys.readouterr().err


def test_config_only_trains_nothing(data, tmp_path, monkeypatch, capsys):
    assert run_tool(monkeypatch, tmp_path, '--data', data, '--weights', 'none', '--config-only') == 0
    assert (tmp_path / 'work_dirs/squares-panoptic.py').is_file()
    assert not (tmp_path / 'work_dirs/squares-panoptic').exists()
    assert 'work_dirs/squares-panoptic.py' in capsys.readouterr().err


def test_a_model_of_ones_own_keeps_its_number_of_kernels(data, tmp_path, monkeypatch):
    weights = {'backbone.a': torch.zeros(1), 'panoptic_head.kernel_head.init_kernels.weight': torch.zeros(7, 64, 1, 1)}
    torch.save(dict(state_dict=weights), tmp_path / 'own.pth')
    assert run_tool(monkeypatch, tmp_path, '--data', data, '--weights', 'own.pth', '--config-only') == 0
    cfg = Config.fromfile(tmp_path / 'work_dirs/squares-panoptic.py')
    assert cfg.model.panoptic_head.kernel_head.num_kernels == 7 and cfg.load_from == str(tmp_path / 'own.pth')


def test_a_model_of_ones_own_keeps_its_kernels_from_centres(data, tmp_path, monkeypatch):
    weights = {'backbone.a': torch.zeros(1),
               'panoptic_head.kernel_head.conv_centre.weight': torch.zeros(1, 64, 1, 1)}
    torch.save(dict(state_dict=weights), tmp_path / 'own.pth')
    assert run_tool(monkeypatch, tmp_path, '--data', data, '--weights', 'own.pth', '--config-only') == 0
    cfg = Config.fromfile(tmp_path / 'work_dirs/squares-panoptic.py')
    assert cfg.model.panoptic_head.kernel_head.type == 'knet_plugin.CentreKernelHead'
