"""The published models in the metafiles that ``mim`` reads: configs, sizes, figures and weights."""

import csv
import re
from pathlib import Path

import pytest
import yaml
from mim.commands.search import convert2df, filter_by_conditions, filter_by_models, filter_by_training_datasets
from mmengine.config import Config
from modelindex.load_model_index import load
from test_configs import DETECTION, SEMANTIC

from knet_plugin.cli import resolve_config

ROOT = Path(__file__).resolve().parent.parent
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text())
COSTS = ROOT / 'docs/models.csv'  # measured by benchmarks/model_cards.py
ENTRIES = [model for metafile in INDEX['Import'] for model in yaml.safe_load((ROOT / metafile).read_text())['Models']]
MODELS = {model['Name']: model for model in ENTRIES}

# Name in the official release: PQ or mask AP on val2017, and the file of the weights where one is published.
RELEASE = {
    'knet_s3_r50_fpn_1x_coco': (34.0, '20211016_113017-8a8645d4'),
    'knet_s3_r50_fpn_ms-3x_coco': (37.8, None),
    'knet_s3_r101_fpn_ms-3x_coco': (39.2, None),
    'knet_s3_r101_dcn-c3-c5_fpn_ms-3x_coco': (40.5, '20211017_054515-163a3126'),
    'knet_s3_r50_fpn_1x_coco-panoptic': (44.3, '20211017_151750-395fbcba'),
    'knet_s3_r50_fpn_ms-3x_coco-panoptic': (47.1, '20211017_054613-4375b8be'),
    'knet_s3_r101_fpn_ms-3x_coco-panoptic': (48.4, '20211017_054501-9c600b0c'),
    'knet_s3_r101_dcn-c3-c5_fpn_ms-3x_coco-panoptic': (49.6, '20211019_191549-6d13fab7'),
    'knet_s3_swin-l_fpn_ms-3x_16x2_coco-panoptic': (54.6, '20211020_062341-62f3bbff'),
}
PAPER = {  # not in the release
    'knet-s3_r50_fpn_1x_coco': {('COCO', 'mask AP of the paper'): 34.1},
    'knet-s3-n256_r50_fpn_ms-3x_coco': {('COCO', 'mask AP'): 38.6},
    'knet-s3_r101_fpn_ms-3x_coco': {('COCO test-dev', 'mask AP'): 40.1},
    'knet-s3-n256_r101_fpn_ms-3x_coco': {('COCO test-dev', 'mask AP'): 40.6},
    'knet-s3_r50_fpn_ms-3x_coco-panoptic': {('COCO', 'things'): 51.7, ('COCO', 'stuff'): 40.3},
    'knet-s3_r101_fpn_ms-3x_coco-panoptic': {('COCO test-dev', 'PQ'): 47.0},
    'knet-s3_r101-dconv-c3-c5_fpn_ms-3x_coco-panoptic': {('COCO test-dev', 'PQ'): 48.3},
    'knet-s3_swin-l-p4-w7_fpn_16xb2-ms-3x_coco-panoptic': {('COCO test-dev', 'PQ'): 55.2},
}
# mIoU of the release, and of mmsegmentation's weights where they fit.
MIOU = dict(zip(SEMANTIC, [(43.3, 43.6), (43.9, 44.18), (44.6, 45.06), (43.6,), (45.4,), (52.0,), (52.7,)],
                strict=True))
FROZEN = 225_344  # stem and first stage of a ResNet


def figures(name: str) -> dict[tuple[str, str], float]:
    return {(result['Dataset'], metric): value for result in MODELS[name]['Results']
            for metric, value in result['Metrics'].items()}


def test_every_published_model_has_one_entry():
    assert sorted(model['Name'] for model in ENTRIES) == sorted(SEMANTIC.keys() | DETECTION.keys())


def test_all_metafiles_are_imported():
    there = [str(path.relative_to(ROOT)) for path in ROOT.glob('configs/*/metafile.yml')]
    assert sorted(INDEX['Import']) == sorted(there)


def test_each_model_has_its_cost():
    """From which, and from the metafiles, the site makes a page for each."""
    with COSTS.open(newline='') as file:
        rows = {row['name']: row for row in csv.DictReader(file)}
    recipes = {path.stem for path in (ROOT / 'configs/recipe').glob('knet-*.py') if 'shapes' not in path.name}
    assert rows.keys() == MODELS.keys() | recipes
    for name, model in MODELS.items():
        assert float(rows[name]['parameters']) == pytest.approx(model['Metadata']['Parameters'] / 1e6, abs=0.06), name


@pytest.mark.parametrize('name', MODELS)
def test_names_its_config(name):
    config = MODELS[name]['Config']
    assert Path(config).stem == name
    assert resolve_config(name) == ROOT / config


@pytest.mark.parametrize('name', SEMANTIC)
def test_semantic_models(name):
    metadata = MODELS[name]['Metadata']
    assert (metadata['Training Data'], metadata['Batch Size']) == ('ADE20K', 16)
    assert metadata['Parameters'] == SEMANTIC[name][1]
    keys = [('ADE20K', 'mIoU'), ('ADE20K', 'mIoU of the weights')]
    assert figures(name) == dict(zip(keys, MIOU[name], strict=False))
    # Without weights, mim downloads the config alone.
    weights = r'https://\S+-[0-9a-f]{8}\.pth' if len(MIOU[name]) == 2 else r'\./'
    assert re.fullmatch(weights, MODELS[name]['Weights'])


@pytest.mark.parametrize('name', DETECTION)
def test_detectors(name):
    official, parameters, millions = DETECTION[name]
    metadata = MODELS[name]['Metadata']
    batch_size = Config.fromfile(resolve_config(name)).auto_scale_lr.base_batch_size
    assert (metadata['Training Data'], metadata['Batch Size']) == ('COCO', batch_size)
    assert metadata['Epochs'] == (36 if 'ms-3x' in name else 12)
    assert metadata['Parameters'] == parameters
    assert metadata['Trained Parameters'] == parameters - (0 if 'swin' in name else FROZEN)
    assert round(metadata['Trained Parameters'] / 1e6, 2) == millions
    figure, file = RELEASE[official] if official else (None, None)
    metric = 'PQ' if 'panoptic' in name else 'mask AP'
    assert figures(name) == ({('COCO', metric): figure} if figure else {}) | PAPER.get(name, {})
    folder = 'https://download.openmmlab.com/mim-example/knet/det/knet'
    assert MODELS[name]['Weights'] == (f'{folder}/{official}/{official}_{file}.pth' if file else './')
    assert ('Weights From' in metadata) == bool(file)


def test_mim_can_search_them():
    table = convert2df(load(str(ROOT / 'model-index.yml')))
    assert set(filter_by_models(table, ['K-Net']).index) == MODELS.keys()
    assert set(table['paper']) == {'https://arxiv.org/abs/2106.14855'}
    assert set(filter_by_training_datasets(table, ['COCO']).index) == DETECTION.keys()
    assert set(filter_by_training_datasets(table, ['ADE20K']).index) == SEMANTIC.keys()
    for condition, expected in (
            ('pq>48', {name for name in DETECTION if figures(name).get(('COCO', 'PQ'), 0) > 48}),
            ('mask_ap>40', {name for name in DETECTION if any('AP' in metric and value > 40 for (_, metric), value
                                                              in figures(name).items())}),
            ('trained_parameters<37300000 epochs>30', {'knet-s3_r50_fpn_ms-3x_coco',
                                                       'knet-s3-n256_r50_fpn_ms-3x_coco'})):
        assert set(filter_by_conditions(table, condition).index) == expected
        assert len(expected) in (2, 3)
