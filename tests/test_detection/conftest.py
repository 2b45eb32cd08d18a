import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

from knet_plugin.datasets.shapes import make_shapes


@pytest.fixture(scope='session')
def shapes(tmp_path_factory) -> Path:
    """A small data set that nobody changes."""
    root = tmp_path_factory.mktemp('shapes') / 'data'
    make_shapes(root, 12, 2)
    return root


@pytest.fixture
def root(shapes, tmp_path) -> Path:
    """A copy of it to spoil."""
    return shutil.copytree(shapes, tmp_path / 'data')


@pytest.fixture
def mmdet_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield
