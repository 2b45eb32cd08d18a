import pickle

import pytest
import torch

from knet_plugin.checkpoint import CheckpointError, read_checkpoint, weights_of


class Harmless:
    """A class that ``weights_only`` does not know."""


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def test_good_files(tmp_path):
    weights = {'a': torch.rand(3), 'b.c': torch.rand(2, 2)}
    for name, options in (('new', {}), ('old', dict(_use_new_zipfile_serialization=False))):
        path = saved(tmp_path / f'{name}.pth', dict(state_dict=weights, meta=dict(epoch=3)), **options)
        content = read_checkpoint(path)
        assert content['meta'] == dict(epoch=3)
        assert all(torch.equal(value, weights[key]) for key, value in content['state_dict'].items())


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no\.pth'):
        read_checkpoint(tmp_path / 'no.pth')


@pytest.mark.parametrize('content, message', [
    (b'', 'is empty'),
    (b'  \n', 'is empty'),
    (b'<!DOCTYPE html><html><body>404</body></html>', 'is a web page'),
    (b'\n <html>', 'is a web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a', 'no checkpoint, or damaged'),
    (bytes(range(256)) * 8, 'no checkpoint, or damaged'),
    (pickle.dumps([1, 2, 3]), 'no checkpoint, or damaged|holds a list'),
])
def test_what_is_no_checkpoint(tmp_path, content, message):
    path = tmp_path / 'file.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f'file.pth .*({message})'):
        read_checkpoint(path)


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize('new', [True, False])
def test_truncated(tmp_path, share, new):
    path = saved(tmp_path / 'file.pth', dict(state_dict={'a': torch.rand(4096)}), _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    path.write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(CheckpointError, match='truncated|damaged'):
        read_checkpoint(path)


def test_no_dict(tmp_path):
    with pytest.raises(CheckpointError, match='holds a Tensor'):
        read_checkpoint(saved(tmp_path / 'file.pth', torch.rand(3)))


def test_code_is_executed_only_on_trust(tmp_path, monkeypatch):
    path = saved(tmp_path / 'file.pth', dict(state_dict={'a': torch.rand(1)}, extra=Harmless()))
    with pytest.raises(CheckpointError, match=r'asks for code .*\.Harmless.*KNET_TRUST_CHECKPOINTS=1.*--trust'):
        read_checkpoint(path)
    assert isinstance(read_checkpoint(path, trust=True)['extra'], Harmless)
    monkeypatch.setenv('KNET_TRUST_CHECKPOINTS', '1')
    assert isinstance(read_checkpoint(path)['extra'], Harmless)
    with pytest.raises(CheckpointError):
        read_checkpoint(path, trust=False)


A, B = torch.rand(2), torch.rand(3)


@pytest.mark.parametrize('content', [
    {'x.a': A, 'y': B},
    {'state_dict': {'x.a': A, 'y': B}, 'optimizer': {}},
    {'model': {'x.a': A, 'y': B}},
    {'state_dict': {'module.x.a': A, 'module.y': B}},
    {'state_dict': {'x.a': A, 'y': B, 'ema_x_a': A + 1, 'ema_y': B + 1}},
    {'state_dict': {'x.a': A, 'y': B}, 'ema_state_dict': {'x.a': A + 1, 'y': B + 1}},
    {'state_dict': {'x.a': A + 1, 'y': B + 1}, 'ema_state_dict': {'steps': torch.tensor(3), 'module.module.x.a': A,
                                                                  'module.module.y': B}},
])
def test_wrappers(content):
    weights, dropped = weights_of(content)
    assert dropped.keys() <= {'optimizer', 'ema_state_dict', 'ema_x_a', 'ema_y', 'state_dict', 'steps'}
    assert weights.keys() == {'x.a', 'y'} and weights['x.a'] is A and weights['y'] is B


@pytest.mark.parametrize('content', [
    {'state_dict': {'x.a': A, 'y': B, 'ema_x_a': A + 1, 'ema_y': B + 1}},
    {'state_dict': {'x.a': A, 'y': B}, 'ema_state_dict': {'module.x.a': A + 1, 'module.y': B + 1}},
    # mmengine's EMA hook swaps the two when it saves.
    {'state_dict': {'x.a': A + 1, 'y': B + 1}, 'ema_state_dict': {'steps': torch.tensor(3), 'module.x.a': A,
                                                                  'module.y': B}},
])
def test_averages(content):
    weights, _ = weights_of(content, averaged=True)
    assert torch.equal(weights['x.a'], A + 1) and torch.equal(weights['y'], B + 1) and len(weights) == 2


def test_what_is_no_weight_is_named():
    _, dropped = weights_of({'meta': {}, 'optimizer': {}, 'state_dict': {'x.a': A, 'y': B, 'ema_x_a': A, 'n': 3},
                             'ema_state_dict': {'x.a': A}})
    assert dropped == {'optimizer': 'no weight', 'n': 'no weight', 'ema_x_a': 'averaged weights',
                       'ema_state_dict': 'averaged weights'}


def test_no_averages():
    with pytest.raises(CheckpointError, match='no averaged weights'):
        weights_of({'state_dict': {'x.a': A}}, averaged=True)


def test_no_weights():
    with pytest.raises(CheckpointError, match=r"no weights, only \['epoch', 'meta'\]"):
        weights_of({'meta': {}, 'epoch': 3})
