"""What holds for every test."""

import importlib
import pkgutil
import random

import numpy as np
import pytest
import torch
from hypothesis import settings

import knet_plugin

# Hypothesis also draws numbers that it finds in the modules that are there: all of them, whichever test is the first.
for module in pkgutil.walk_packages(knet_plugin.__path__, 'knet_plugin.'):
    if not module.name.endswith('__main__'):
        importlib.import_module(module.name)
settings.register_profile('repeatable', derandomize=True)
settings.load_profile('repeatable')


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    """Make each fixture from one seed, whichever test asks for it first."""
    _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Start each test from one seed, whatever its fixtures have drawn, if they were not there already."""
    _seed()
