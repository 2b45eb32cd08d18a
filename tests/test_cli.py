"""The command line: finding configs and tools, passing on arguments and exit statuses, and the scripts themselves."""

import argparse
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from mmengine.config import Config

from knet_plugin import cli
from knet_plugin.cli import ResourceError, list_configs, main, resolve_config, resolve_tool, resource_root

ROOT = Path(__file__).resolve().parent.parent
# Writes what it was called with, and ends with the status it is told.
ECHO_TOOL = """
import importlib.util, json, os, sys
rank = os.environ.get('RANK', '')
package = importlib.util.find_spec('knet_plugin').origin
json.dump([sys.argv[1:], os.environ.get('WORLD_SIZE'), package], open(os.environ['ECHO_FILE'] + rank, 'w'))
sys.exit(int(os.environ.get('ECHO_STATUS', 0)))
"""
TOY_CONFIG = """
custom_imports = dict(imports=['toy_parts'])
model = dict(type='ToyModel')
train_dataloader = dict(dataset=dict(type='ToyDataset'), batch_size=2, num_workers=0,
                        sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = dict(dataset=dict(type='ToyDataset'), batch_size=2, num_workers=0,
                       sampler=dict(type='DefaultSampler', shuffle=False))
train_cfg = dict(by_epoch=True, max_epochs=1)
test_cfg = dict()
test_evaluator = dict(type='ToyMetric')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""
TOY_PARTS = """
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x, mode='loss'):
        y = self.layer(torch.stack(x))
        return dict(loss=y.square().mean()) if mode == 'loss' else [dict(y=float(v)) for v in y]


@DATASETS.register_module()
class ToyDataset(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(x=torch.tensor([float(index)]))


@METRICS.register_module()
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [sample['y'] for sample in data_samples]

    def compute_metrics(self, results):
        return dict(count=len(results))
"""


@pytest.fixture
def wheel_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with resources inside, as a wheel has them; its tools only echo."""
    root = tmp_path / 'site' / 'knet_plugin' / '.mim'
    for name in ('semantic/knet_one', 'semantic/knet_two', 'panoptic/knet_two', '_base_/knet_base'):
        path = root / 'configs' / f'{name}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('')
    (root / 'model-index.yml').write_text('')
    for name in ('train', 'test', 'analysis/count'):
        path = root / 'tools' / f'{name}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ECHO_TOOL)
    (tmp_path / 'site' / 'configs').mkdir()  # of another, careless package
    monkeypatch.setattr(cli, '_PACKAGE', root.parent)
    return root


@pytest.fixture
def echo(wheel_like, tmp_path, monkeypatch):
    """Runs the command line on the echoing tools; gives its status and what each process was called with."""
    monkeypatch.setenv('ECHO_FILE', str(tmp_path / 'echo'))
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    # The tools must get the real package, not the empty folder.
    monkeypatch.setattr(cli, 'resource_root', lambda: wheel_like)
    monkeypatch.setattr(cli, '_PACKAGE', ROOT / 'knet_plugin')

    def call(*arguments: str) -> tuple[int, list]:
        status = main(arguments)
        return status, [json.loads(file.read_text()) for file in sorted(tmp_path.glob('echo*'))]

    return call


def test_resources_of_this_clone_are_found():
    assert resource_root() == ROOT


def test_resources_of_a_wheel_are_found_inside_the_package(wheel_like):
    assert resource_root() == wheel_like


def test_no_resources_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, '_PACKAGE', tmp_path / 'knet_plugin')
    with pytest.raises(ResourceError, match='install the package again'):
        resource_root()


def test_every_config_has_a_name_of_its_own():
    names = list_configs()
    assert names
    assert len(names) == len(set(names))
    for name in names:
        assert resolve_config(name).stem == name


@pytest.mark.parametrize('name', ['knet_one', 'knet_one.py', 'semantic/knet_one', 'configs/semantic/knet_one.py'])
def test_config_by_name(wheel_like, name):
    assert resolve_config(name) == wheel_like / 'configs' / 'semantic' / 'knet_one.py'


def test_names_with_dots_are_not_cut(wheel_like):
    path = wheel_like / 'configs' / 'knet_lr0.01.py'
    path.write_text('')
    assert resolve_config('knet_lr0.01') == path


def test_a_path_that_exists_is_taken_as_it_is(wheel_like, tmp_path, monkeypatch):
    mine = tmp_path / 'knet_one.py'
    mine.write_text('')
    assert resolve_config(mine) == mine
    monkeypatch.chdir(tmp_path)
    assert resolve_config('knet_one.py') == Path('knet_one.py')


def test_several_configs_of_one_name_are_listed(wheel_like):
    with pytest.raises(ResourceError, match=r"several configs are called 'knet_two'") as caught:
        resolve_config('knet_two')
    assert 'semantic/knet_two' in str(caught.value)
    assert 'panoptic/knet_two' in str(caught.value)
    assert resolve_config('panoptic/knet_two').parent.name == 'panoptic'


def test_close_names_are_suggested(wheel_like):
    with pytest.raises(ResourceError, match='there is no config') as caught:
        resolve_config('knet_tow')
    assert 'did you mean' in str(caught.value)
    assert 'knet_two' in str(caught.value)


@pytest.mark.parametrize('name', ['qqqqqqqqqqqq', '/absent/knet_one.py', 'one', 'knet_base', 'tic/knet_one'])
def test_unknown_configs(wheel_like, name):
    with pytest.raises(ResourceError, match='there is no config'):
        resolve_config(name)


@pytest.mark.parametrize('name', ['count', 'analysis/count', 'analysis:count', 'tools/analysis/count.py'])
def test_tool_by_name(wheel_like, name):
    assert resolve_tool(name) == wheel_like / 'tools' / 'analysis' / 'count.py'


def test_configs_command(wheel_like, capsys):
    assert main(['configs']) == 0
    assert capsys.readouterr().out.split() == ['knet_one', 'knet_two', 'knet_two']
    assert main(['configs', 'ONE']) == 0
    assert capsys.readouterr().out.split() == ['knet_one']
    assert main(['configs', 'absent']) == 2
    assert 'no config\'s name contains' in capsys.readouterr().err


def test_train_hands_on_config_and_arguments_in_order(echo, wheel_like):
    status, calls = echo('train', 'knet_one', '--work-dir', 'somewhere', '--cfg-options', 'a=1', 'b=2', '--resume')
    config = str(wheel_like / 'configs' / 'semantic' / 'knet_one.py')
    assert status == 0
    assert calls == [[[config, '--launcher', 'none', '--work-dir', 'somewhere', '--cfg-options', 'a=1', 'b=2',
                       '--resume'], None, str(ROOT / 'knet_plugin' / '__init__.py')]]


def test_test_hands_on_the_checkpoint(echo):
    status, calls = echo('test', 'knet_one', 'weights.pth', '--tta')
    assert status == 0
    assert calls[0][0][1:] == ['--launcher', 'none', 'weights.pth', '--tta']


def test_run_leaves_the_arguments_alone(echo):
    status, calls = echo('run', 'analysis:count', 'knet_one', '-h')
    assert status == 0
    assert calls[0][0] == ['knet_one', '-h']


def test_exit_status_of_the_script_is_passed_on(echo, monkeypatch):
    monkeypatch.setenv('ECHO_STATUS', '7')
    assert echo('train', 'knet_one')[0] == 7


def test_a_killed_script_is_a_failure(echo, wheel_like):
    (wheel_like / 'tools' / 'kill.py').write_text('import os, signal; os.kill(os.getpid(), signal.SIGKILL)')
    assert echo('run', 'kill')[0] == 128 + 9


def test_pytorch_launcher_starts_several_processes(echo):
    status, calls = echo('train', 'knet_one', '--launcher', 'pytorch', '--gpus', '2', '--resume')
    assert status == 0
    assert [call[1] for call in calls] == ['2', '2']
    assert calls[0][0][1:] == ['--launcher', 'pytorch', '--resume']


@pytest.mark.parametrize(('arguments', 'message'), [
    (['nonsense'], 'no command'),
    (['train'], 'wants the config first'),
    (['train', '--resume', 'knet_one'], 'wants the config first'),
    (['train', 'knet_tow'], 'did you mean'),
    (['train', 'knet_one', '--gpus', '2'], 'go with --launcher pytorch'),
    (['run'], 'one of: count, test, train'),
    (['run', 'absent'], 'there is no tool'),
    (['configs', 'a', 'b'], 'one pattern'),
])
def test_wrong_calls_are_explained(wheel_like, capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_help(capsys):
    assert main(['--help']) == 0
    assert 'usage: python -m knet_plugin' in capsys.readouterr().out
    assert main([]) == 2


def test_train_resume_and_test_with_a_toy_model(tmp_path):
    (tmp_path / 'toy_parts.py').write_text(TOY_PARTS)
    (tmp_path / 'toy.py').write_text(TOY_CONFIG)
    environment = dict(os.environ, PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}')

    def call(*arguments: str) -> str:
        done = subprocess.run([sys.executable, '-m', 'knet_plugin', *arguments], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    call('train', 'toy.py')
    work_dir = tmp_path / 'work_dirs' / 'toy'
    assert (work_dir / 'epoch_1.pth').is_file()
    output = call('train', 'toy.py', '--resume', '--cfg-options', 'train_cfg.max_epochs=2')
    assert 'resumed epoch: 1' in output
    call('test', 'toy.py', str(work_dir / 'epoch_2.pth'), '--work-dir', 'elsewhere', '--out', 'predictions.pkl')
    assert (tmp_path / 'elsewhere').is_dir()
    predictions = pickle.loads((tmp_path / 'predictions.pkl').read_bytes())
    assert len(predictions) == 4


def script(name: str) -> ModuleType:
    """A script of tools/, as a module."""
    spec = importlib.util.spec_from_file_location(f'knet_tool_{name}', ROOT / 'tools' / f'{name}.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_unknown_config_ends_a_script_with_suggestions(wheel_like):
    with pytest.raises(SystemExit, match='did you mean'):
        cli.load_run_config(argparse.Namespace(config='knet_tow', local_rank=0))


def test_amp_switches_the_wrapper():
    cfg = Config({'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD'}}})
    script('train').enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    with pytest.raises(SystemExit, match='has ApexOptimWrapper'):
        script('train').enable_amp(Config({'optim_wrapper': {'type': 'ApexOptimWrapper'}}))


def test_lr_scaling_needs_a_base():
    cfg = Config({'auto_scale_lr': {'enable': False, 'base_batch_size': 16}})
    script('train').enable_lr_scaling(cfg)
    assert cfg.auto_scale_lr.enable is True
    with pytest.raises(SystemExit, match='base_batch_size'):
        script('train').enable_lr_scaling(Config({}))


def test_tta_wraps_the_model_and_feeds_the_innermost_dataset():
    cfg = Config({'model': {'type': 'EncoderDecoder'}, 'tta_model': {'type': 'SegTTAModel'},
                  'tta_pipeline': [{'type': 'TestTimeAug'}],
                  'test_dataloader': {'dataset': {'type': 'Repeat', 'dataset': {'pipeline': []}}}})
    script('test').enable_tta(cfg)
    assert cfg.model == {'type': 'SegTTAModel', 'module': {'type': 'EncoderDecoder'}}
    assert cfg.test_dataloader.dataset.dataset.pipeline == [{'type': 'TestTimeAug'}]
    with pytest.raises(SystemExit, match='needs tta_model and tta_pipeline'):
        script('test').enable_tta(Config({'model': {}}))


def test_predictions_are_kept_by_what_the_config_has():
    keep = script('test').keep_predictions
    semantic = Config({'default_scope': 'mmseg', 'test_evaluator': {'type': 'IoUMetric'}})
    keep(semantic, 'folder')
    assert semantic.test_evaluator == [{'type': 'IoUMetric', 'output_dir': 'folder'}]
    detection = Config({'default_scope': 'mmdet', 'test_evaluator': [{'type': 'CocoMetric'}]})
    keep(detection, 'file.pkl')
    assert detection.test_evaluator == [{'type': 'CocoMetric'}, {'type': 'DumpDetResults', 'out_file_path': 'file.pkl'}]
    with pytest.raises(SystemExit, match='only semantic results'):
        keep(detection, 'folder')


@pytest.mark.parametrize(('hook', 'where'), [('SegVisualizationHook', 'visualizer'), ('DetVisualizationHook', 'hook')])
def test_drawing_goes_where_the_host_wants_it(hook, where):
    cfg = Config({'default_hooks': {'visualization': {'type': hook}}, 'visualizer': {}})
    script('test').enable_drawing(cfg, argparse.Namespace(show=False, show_dir='drawn', wait_time=0))
    assert cfg.default_hooks.visualization.draw is True
    assert cfg.visualizer.get('save_dir') == ('drawn' if where == 'visualizer' else None)
    assert cfg.default_hooks.visualization.get('test_out_dir') == ('drawn' if where == 'hook' else None)
    with pytest.raises(SystemExit, match='visualization hook'):
        script('test').enable_drawing(Config({}), argparse.Namespace(show=True, show_dir=None, wait_time=0))
