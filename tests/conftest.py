"""What holds for every test."""

import random

import numpy as np
import pytest
import torch
from hypothesis import settings

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
