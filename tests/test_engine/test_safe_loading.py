"""Training checkpoints of mmengine load without running code from the file."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from knet_plugin.compat import release
from knet_plugin.engine.safe_loading import allow_host_checkpoints

pytestmark = pytest.mark.skipif(release(torch.__version__) < (2, 6), reason='torch below 2.6 does not check files')


class Line(BaseModel):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x, mode='loss'):
        """The loss of a batch."""
        x = torch.stack(x) if isinstance(x, list) else x
        return {'loss': self.layer(x).square().mean()}


class Points(Dataset):
    """Four numbers."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        return {'x': torch.tensor([float(index)])}


def train(work_dir: Path, epochs: int, resume: bool = False) -> Runner:
    loader = {'dataset': Points(), 'batch_size': 2, 'num_workers': 0,
              'sampler': {'type': 'DefaultSampler', 'shuffle': False}}
    runner = Runner(Line(), work_dir=str(work_dir), train_dataloader=loader, resume=resume,
                    train_cfg={'by_epoch': True, 'max_epochs': epochs},
                    optim_wrapper={'optimizer': {'type': 'AdamW', 'lr': 0.01}},
                    default_hooks={'logger': {'type': 'LoggerHook', 'interval': 1}},
                    experiment_name=f'{work_dir.name}_{epochs}')
    runner.train()
    return runner


@pytest.fixture
def only_defaults_allowed():
    """Starts without what the plugin allowed when it was imported, and restores it."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


def test_a_training_checkpoint_is_refused_first_and_loads_then(tmp_path, only_defaults_allowed):
    train(tmp_path, epochs=1)
    path = tmp_path / 'epoch_1.pth'
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    allow_host_checkpoints()
    allow_host_checkpoints()
    checkpoint = torch.load(path, weights_only=True)
    history = checkpoint['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    losses, counts = history.data
    assert losses.shape == counts.shape == (2,)
    assert history.mean() == pytest.approx(losses.mean())


def test_training_is_resumed(tmp_path, only_defaults_allowed):
    allow_host_checkpoints()
    first = train(tmp_path, epochs=1)
    weight = first.model.layer.weight.detach().clone()
    second = train(tmp_path, epochs=2, resume=True)
    assert second.iter == 4
    # The history of the first epoch came along.
    assert len(second.message_hub.get_scalar('train/loss').data[0]) == 4
    assert not torch.equal(second.model.layer.weight, weight)


@pytest.mark.parametrize('value', [
    np.float64(3.5), np.float32(0.25), np.int64(-7), np.bool_(True), np.arange(6).reshape(2, 3),
    np.zeros(3, dtype=np.uint8),
], ids=repr)
def test_numpy_values_come_back_equal(tmp_path, only_defaults_allowed, value):
    allow_host_checkpoints()
    torch.save({'value': value}, tmp_path / 'file.pth')
    loaded = torch.load(tmp_path / 'file.pth', weights_only=True)['value']
    assert loaded.dtype == value.dtype
    assert np.array_equal(loaded, value)


class Reach:
    """Pickles as ``getattr(owner, name)``."""

    def __init__(self, owner, name) -> None:
        self.arguments = owner, name

    def __reduce__(self):
        return getattr, self.arguments


@pytest.mark.parametrize(('owner', 'name'), [(HistoryBuffer, '__init__'), (HistoryBuffer, 'update'), (dict, 'get'),
                                             (np.ndarray, 'tofile')])
def test_a_file_cannot_reach_for_other_attributes(tmp_path, only_defaults_allowed, owner, name):
    allow_host_checkpoints()
    torch.save({'value': Reach(owner, name)}, tmp_path / 'file.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'file.pth', weights_only=True)


def test_a_file_cannot_call_anything(tmp_path, only_defaults_allowed):
    class Shell:
        def __reduce__(self):
            return Path.touch, (tmp_path / 'called',)

    allow_host_checkpoints()
    torch.save({'value': Shell()}, tmp_path / 'file.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'file.pth', weights_only=True)
    assert not (tmp_path / 'called').exists()
