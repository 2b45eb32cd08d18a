"""Annotation files with values of any type: an error that names the file, never a traceback."""

import pytest
from check_data_files import edit, instance_config, panoptic_config, write_instances, write_panoptic

from knet_plugin.datasets.check import check_config

OURS = dict(instances=('knet_plugin.InstanceDataset', 'knet_plugin.InstanceMetric'),
            panoptic=('knet_plugin.PanopticDataset', 'knet_plugin.PanopticMetric'))
FIELDS = dict(images=('id', 'file_name', 'height', 'width'), categories=('id', 'name', 'isthing'),
              annotations=('image_id', 'category_id', 'bbox', 'area', 'segmentation', 'iscrowd', 'file_name',
                           'segments_info'),
              segments_info=('id', 'category_id', 'area', 'bbox', 'iscrowd'))
VALUES = [None, 5, -1, 1e400, 'text', '', [], [[]], [None], {}, {'size': None}, True]


@pytest.fixture(params=['instances', 'panoptic'])
def kind(request):
    return request.param


@pytest.fixture(params=[True, False])
def cfg(kind, request, tmp_path):
    (write_instances if kind == 'instances' else write_panoptic)(tmp_path)
    names = OURS[kind] if request.param else ()
    return (instance_config if kind == 'instances' else panoptic_config)(tmp_path, *names)


@pytest.mark.parametrize('value', VALUES)
def test_entries_of_any_type(tmp_path, cfg, value):
    for name in ('images', 'annotations', 'categories'):
        for change in (lambda data, name=name: data.update({name: value}),
                       lambda data, name=name: data[name].__setitem__(0, value)):
            (tmp_path / 'val.json').write_text((tmp_path / 'train.json').read_text())
            edit(tmp_path, change, 'val')
            report = check_config(cfg)
            assert all(str(tmp_path) in finding.file for finding in report.errors)
            assert report.errors or name == 'annotations'  # a file may have none, and mmdet looks only at keys
            assert report.text()


@pytest.mark.parametrize('value', VALUES)
def test_fields_of_any_type(tmp_path, cfg, kind, value):
    for name, keys in FIELDS.items():
        for key in keys:
            (tmp_path / 'val.json').write_text((tmp_path / 'train.json').read_text())

            def change(data, name=name, key=key):
                entry = (data[name] if name in data else data['annotations'][0].get(name, [{}]))[0]
                entry[key] = value

            edit(tmp_path, change, 'val')
            report = check_config(cfg)
            assert all(str(tmp_path) in finding.file for finding in report.errors + report.warnings)
            assert report.text()


@pytest.mark.parametrize(('name', 'key', 'value'), [
    ('annotations', 'category_id', [1]), ('images', 'file_name', 7), ('images', 'height', 'forty'),
    ('images', 'height', [40]), ('images', 'id', [0])])
def test_the_finding_names_the_file(tmp_path, cfg, kind, name, key, value):
    def change(data):
        entry = data[name][0]
        (entry['segments_info'][0] if key == 'category_id' and kind == 'panoptic' else entry)[key] = value

    edit(tmp_path, change, 'val')
    report = check_config(cfg)
    assert f'{tmp_path}/val.json' in {finding.file for finding in report.errors + report.warnings}
    assert report.errors or key == 'category_id'  # our data sets skip a single annotation, and count it
    assert [census.section for census in report.census][:1] == ['train']


def test_a_null_annotation(tmp_path, cfg):
    edit(tmp_path, lambda data: data['annotations'].append(None), 'val')
    assert {error.file for error in check_config(cfg).errors} == {f'{tmp_path}/val.json'}
