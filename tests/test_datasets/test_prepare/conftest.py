from pathlib import Path

import own_data
import pytest

from knet_plugin.datasets.prepare import Options, find_sources, prepare


@pytest.fixture(scope='session')
def pictures() -> list[own_data.Picture]:
    return own_data.make_pictures()


@pytest.fixture
def images(pictures, tmp_path) -> Path:
    return own_data.write_images(tmp_path / 'images', pictures)


@pytest.fixture
def masks(pictures, tmp_path) -> Path:
    """Instance masks of one class."""
    for picture in pictures:
        own_data.write_png(tmp_path / f'masks/{picture.stem}.png', picture.ids())
    return tmp_path / 'masks'


@pytest.fixture
def run(images, tmp_path):
    """Prepare annotations of ``images`` into ``tmp_path / 'out'``."""

    def run(annotations, *classes, stuff=(), ignore=(255,), format='auto', **others):
        sources = find_sources(images, annotations)
        return prepare(sources, tmp_path / 'out', Options(classes, stuff, ignore, format), **others)

    return run
