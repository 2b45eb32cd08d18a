import shutil
from pathlib import Path

import pytest

from knet_plugin.datasets.shapes import make_shapes


@pytest.fixture(scope='session')
def shapes(tmp_path_factory) -> Path:
    """A small data set, not to be modified; it contains crowds."""
    root = tmp_path_factory.mktemp('shapes') / 'data'
    make_shapes(root, 16, 12)
    return root


@pytest.fixture
def root(shapes, tmp_path) -> Path:
    """A copy of ``shapes`` that may be modified."""
    return shutil.copytree(shapes, tmp_path / 'data')


@pytest.fixture
def log(monkeypatch) -> list[str]:
    """Lines of the log."""
    lines: list[str] = []
    monkeypatch.setattr('knet_plugin.datasets.instances.print_log', lambda line, *args, **options: lines.append(line))
    return lines
