"""Files that are no checkpoints, and what training scripts wrap around weights."""

import pickle

import numpy as np
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
    (b'\xef\xbb\xbf<html>', 'is a web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a', 'no checkpoint, or damaged'),
    (bytes(range(256)) * 8, 'no checkpoint, or damaged'),
])
def test_what_is_no_checkpoint(tmp_path, content, message):
    path = tmp_path / 'file.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f'file.pth .*({message})'):
        read_checkpoint(path)


def test_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='is a folder'):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize('extra', [np.array(['a', 'b']), np.array([1j]), np.array([None], dtype=object), range(3)])
def test_values_that_need_trust(tmp_path, extra):
    """They are refused with the reason and the way out, not called damaged."""
    path = saved(tmp_path / 'file.pth', dict(state_dict={'a': torch.rand(1)}, extra=extra))
    with pytest.raises(CheckpointError, match=r'file\.pth asks for code .*--trust'):
        read_checkpoint(path)
    assert read_checkpoint(path, trust=True)['state_dict'].keys() == {'a'}


def test_a_plain_pickle_needs_trust(tmp_path):
    (tmp_path / 'file.pth').write_bytes(pickle.dumps({'a': Harmless()}))
    with pytest.raises(CheckpointError, match=r'file\.pth asks for code .*--trust'):
        read_checkpoint(tmp_path / 'file.pth')


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


PLAIN = {'x.a': A, 'y': B}
OTHER = {'x.a': A + 1, 'y': B + 1}


@pytest.mark.parametrize('content, dropped', [
    (PLAIN, set()),
    ({'state_dict': PLAIN, 'optimizer': {}}, {'optimizer'}),
    ({'model': PLAIN}, set()),
    ({'state_dict': {'module.x.a': A, 'module.y': B}}, set()),
    # mmcv's EMA hook
    ({'state_dict': PLAIN | {'ema_x_a': A + 1, 'ema_y': B + 1}}, {'ema_x_a', 'ema_y'}),
    # an average beside the weights
    ({'state_dict': PLAIN, 'ema_state_dict': OTHER}, {'ema_state_dict'}),
    # mmengine's EMA hook, which swaps the two when it saves: what mmengine loads is the average
    ({'state_dict': PLAIN, 'ema_state_dict': {'steps': torch.tensor(3)} | OTHER}, {'ema_state_dict'}),
])
def test_wrappers(content, dropped):
    weights, left_out = weights_of(content)
    assert weights.keys() == {'x.a', 'y'} and weights['x.a'] is A and weights['y'] is B
    assert left_out.keys() == dropped


def test_what_is_no_weight_is_named():
    _, dropped = weights_of({'meta': {}, 'optimizer': {}, 'state_dict': {'x.a': A, 'ema_x_a': A, 'n': 3},
                             'ema_state_dict': {'x.a': A}})
    assert dropped == {'optimizer': 'beside state_dict', 'n': 'no weight', 'ema_x_a': 'another copy of the weights',
                       'ema_state_dict': 'beside state_dict'}


def test_no_weights():
    with pytest.raises(CheckpointError, match=r"no weights, only \['epoch', 'meta'\]"):
        weights_of({'meta': {}, 'epoch': 3})
