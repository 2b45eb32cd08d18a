"""What holds for every test."""

import random

import numpy as np
import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Start each test, and the fixtures made for it, from one seed: its order and its worker decide nothing."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
