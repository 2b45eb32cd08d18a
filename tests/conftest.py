"""Makes every test independent of the tests before it."""

import importlib
import pkgutil
import random

import numpy as np
import pytest
import torch
from hypothesis import settings
from mmengine.runner.checkpoint import CheckpointLoader

import knet_plugin

# Hypothesis also draws constants from the imported modules: import all of them, whichever test comes first.
for module in pkgutil.walk_packages(knet_plugin.__path__, 'knet_plugin.'):
    if not module.name.endswith('__main__'):
        importlib.import_module(module.name)
settings.register_profile('repeatable', derandomize=True)
settings.load_profile('repeatable')


def pytest_configure(config: pytest.Config) -> None:
    """Keep pytest-randomly, if it shuffles the tests, from replacing the seeds below."""
    config.option.randomly_reset_seed = False


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    """Seed every fixture, whichever test asks for it first."""
    _seed()


@pytest.fixture(autouse=True)
def same_checkpoint_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore mmengine's readers, which a run that failed leaves replaced."""
    monkeypatch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Seed every test, whatever its fixtures have drawn."""
    _seed()


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
