"""data.yml round trip, what it can train, and its faults."""

from pathlib import Path

import pytest

from knet_plugin.datasets.description import DataDescription


@pytest.mark.parametrize(('things', 'stuff', 'tasks'), [
    (('cat', 'dog'), ('floor',), ('panoptic', 'instance', 'semantic')),
    (('cat',), (), ('instance',)),
    ((), ('sky', 'road'), ('semantic',))])
def test_round_trip(tmp_path, things, stuff, tasks):
    description = DataDescription(tmp_path, tasks[0], things, stuff)
    description.write()
    assert DataDescription.read(tmp_path) == DataDescription.read(tmp_path / 'data.yml') == description
    assert description.classes == things + stuff
    assert description.tasks == tasks


def test_root_is_absolute(tmp_path, monkeypatch):
    DataDescription(tmp_path, 'instance', ('cat',), ()).write()
    monkeypatch.chdir(tmp_path)
    assert DataDescription.read('.').root == Path(tmp_path)


def test_names_that_yaml_reads_as_something_else(tmp_path):
    description = DataDescription(tmp_path, 'panoptic', ('no', '1', 'Bücher: alt'), ('null',))
    description.write()
    assert DataDescription.read(tmp_path) == description


def test_metainfo_per_task(tmp_path):
    description = DataDescription(tmp_path, 'panoptic', ('cat', 'dog'), ('floor',))
    panoptic, instance, semantic = map(description.metainfo, description.tasks)
    assert panoptic['classes'] == semantic['classes'] == ['cat', 'dog', 'floor']
    assert panoptic['thing_classes'] == instance['classes'] == ['cat', 'dog']
    assert panoptic['stuff_classes'] == ['floor']
    assert panoptic['palette'] == semantic['palette'] and panoptic['palette'][:2] == instance['palette']
    assert all(isinstance(colour, list) and len(colour) == 3 for colour in panoptic['palette'])
    with pytest.raises(ValueError, match="'depth'"):
        description.metainfo('depth')


@pytest.mark.parametrize(('text', 'named'), [
    (None, 'no such file'),
    ('task: [', 'YAML'),
    ('just words', 'just words'),
    ('task: instance\nthings: [cat]', 'stuff'),
    ('task: instance\nthings: [cat]\nstuff: []\nclases: []', 'clases'),
    ('task: instance\nthings: cat\nstuff: []', "things .*'cat'"),
    ('task: instance\nthings: [no]\nstuff: []', 'things .*False'),
    ('task: panoptic\nthings: [cat]\nstuff: []', "task .*'panoptic'"),
    ('task: instance\nthings: []\nstuff: []', 'things and stuff'),
    ('task: panoptic\nthings: [cat]\nstuff: [cat]', "'cat'")])
def test_faults_name_file_and_field(tmp_path, text, named):
    if text is not None:
        (tmp_path / 'data.yml').write_text(text)
    with pytest.raises(ValueError, match=named) as error:
        DataDescription.read(tmp_path)
    assert str(tmp_path / 'data.yml') in str(error.value)
