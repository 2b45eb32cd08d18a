"""The command ``knet``: finding configs and tools, running them, and the scripts for training and testing."""

import argparse
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from small_predictors import tool
from tiny_runs import tiny_config

from knet_plugin import __version__, cli
from knet_plugin.cli import ResourceError, list_configs, main, resolve_config, resolve_tool, resource_root
from knet_plugin.engine.run_config import add_run_arguments, load_run_config

ROOT = Path(__file__).resolve().parent.parent
SHAPES = 'knet-s3_r18-s_fcn_1xb8-adamw-1k_shapes-128x128'
ECHO_TOOL = '"""What the tool does.\n\nMore."""\nimport sys\nprint(*sys.argv[1:])\nsys.exit(7)\n'


@pytest.fixture
def wheel_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with resources inside, as a wheel has them. Its tools print their arguments and return 7."""
    root = tmp_path / 'site' / 'knet_plugin' / '.mim'
    (root / 'tools').mkdir(parents=True)
    for name in ('semantic/knet_0.1', 'panoptic/knet_two', '_base_/knet_base'):
        path = root / 'configs' / f'{name}.py'
        path.parent.mkdir(parents=True)
        path.touch()
    (root / 'model-index.yml').touch()
    for name in ('train', 'test', 'count'):
        (root / 'tools' / f'{name}.py').write_text(ECHO_TOOL)
    (tmp_path / 'site' / 'configs').mkdir()  # of another package
    monkeypatch.setattr(cli, '_PACKAGE', root.parent)
    monkeypatch.setattr(sys, 'argv', list(sys.argv))
    return root


def test_resources_are_found_in_a_clone():
    assert resource_root() == ROOT


def test_resources_are_found_in_a_wheel(wheel_like):
    assert resource_root() == wheel_like


def test_missing_resources_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, '_PACKAGE', tmp_path / 'knet_plugin')
    with pytest.raises(ResourceError, match='knet_plugin'):
        resource_root()


def test_every_config_has_its_own_name():
    names = list_configs()
    assert names
    assert [resolve_config(name).stem for name in names] == names


@pytest.mark.parametrize('name', ['knet_0.1', 'knet_0.1.py', 'semantic/knet_0.1', 'configs/semantic/knet_0.1.py'])
def test_config_by_name(wheel_like, name):
    assert resolve_config(name) == wheel_like / 'configs' / 'semantic' / 'knet_0.1.py'


def test_an_existing_path_wins(wheel_like, tmp_path, monkeypatch):
    mine = tmp_path / 'knet_0.1.py'
    mine.touch()
    assert resolve_config(mine) == mine
    monkeypatch.chdir(tmp_path)
    assert resolve_config('knet_0.1.py') == Path('knet_0.1.py')


@pytest.mark.parametrize('name', ['qqqqqqqqqqqq', '/absent/knet_0.1.py', '0.1', 'knet_base', 'tic/knet_0.1'])
def test_unknown_config(wheel_like, name):
    with pytest.raises(ResourceError, match=name):
        resolve_config(name)


def test_close_names_are_suggested(wheel_like):
    with pytest.raises(ResourceError, match='knet_tow.*knet_two'):
        resolve_config('knet_tow')
    with pytest.raises(ResourceError, match='coutn.*count'):
        resolve_tool('coutn')


def test_help_lists_commands_and_tools(wheel_like, capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ('train', 'test', 'configs', 'run'))
    assert [line.split() for line in text.splitlines()].count(['count', 'What', 'the', 'tool', 'does.']) == 1
    for option, expected in (('--help', text), ('--version', f'knet_plugin {__version__}\n')):
        with pytest.raises(SystemExit, match='0'):
            main([option])
        assert capsys.readouterr().out == expected


def test_configs_command(wheel_like, capsys):
    assert main(['configs']) == 0
    assert capsys.readouterr().out.split() == ['knet_0.1', 'knet_two']
    assert main(['configs', 'NET_0']) == 0
    assert capsys.readouterr().out.split() == ['knet_0.1']


@pytest.mark.parametrize(('arguments', 'passed_on'), [
    (['train', 'knet_0.1', '--work-dir', 'x', '--cfg-options', 'a=1', 'b=2', '--resume'],
     'knet_0.1 --work-dir x --cfg-options a=1 b=2 --resume --launcher none'),
    (['test', 'knet_0.1', 'weights.pth', '--launcher', 'slurm'], 'knet_0.1 weights.pth --launcher slurm'),
    (['train', '-h'], '-h --launcher none'),
    (['run', 'count', 'knet_0.1', '-h', '--gpus', '2'], 'knet_0.1 -h --gpus 2'),
])
def test_tools_run_in_this_process(wheel_like, capsys, arguments, passed_on):
    with pytest.raises(SystemExit, match='7'):
        main(arguments)
    assert capsys.readouterr().out == f'{passed_on}\n'


@pytest.mark.parametrize('name', cli._SCRIPTS)
def test_each_command_runs_its_script(name, monkeypatch):
    started = []
    monkeypatch.setattr(cli, '_run_script', lambda path, arguments: started.append(path))
    assert main([name, 'x']) == 0
    assert started == [ROOT / f'tools/{name}.py']


@pytest.mark.parametrize('name', ['train', 'test'])
def test_mim_gives_the_tools_no_option_that_they_lack(name, monkeypatch, capsys):
    """It would add ``--gpus`` if their help had that word; ``knet`` alone reads it."""
    monkeypatch.setattr(sys, 'argv', [name, '-h'])
    with pytest.raises(SystemExit, match='0'):
        tool(name).main()
    assert '--gpus' not in capsys.readouterr().out


def test_pytorch_launcher_becomes_torchrun(wheel_like, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(os, 'execv', lambda *given: calls.append(given) or sys.exit(0))
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(SystemExit):
        main(['train', 'knet_0.1', '--launcher', 'pytorch', '--gpus', '2', '--resume'])
    (program, command), = calls
    assert program == sys.executable
    assert ' '.join(command[1:]) == ('-m torch.distributed.run --standalone --nproc-per-node=2 -m knet_plugin train '
                                     'knet_0.1 --resume --launcher pytorch')
    monkeypatch.setenv('RANK', '1')  # a process that torchrun started
    with pytest.raises(SystemExit, match='7'):
        main(command[command.index('train'):])
    assert capsys.readouterr().out == 'knet_0.1 --resume --launcher pytorch\n'


@pytest.mark.parametrize(('arguments', 'match'), [
    (['run', 'absent'], 'absent'), (['configs', 'absent'], 'absent')])
def test_wrong_names_are_errors(wheel_like, capsys, arguments, match):
    assert main(arguments) == 2
    assert match in capsys.readouterr().err


@pytest.mark.parametrize('arguments', [
    ['tran'], ['run'], ['configs', 'a', 'b'], ['--nonsense'], ['train', 'knet_0.1', '--gpus', '2']])
def test_wrong_usage_is_an_error(arguments, capsys):
    with pytest.raises(SystemExit, match='2'):
        main(arguments)
    assert arguments == ['run'] or arguments[-1] in capsys.readouterr().err


def test_train_resume_and_test_a_tiny_model(tmp_path):
    cfg = tiny_config(tmp_path / 'run')
    cfg.custom_imports, cfg.log_level = dict(imports=['tiny_runs']), 'INFO'
    cfg.dump(tmp_path / 'tiny.py')
    program = """
from knet_plugin.cli import main
for words in (
        'train tiny.py',
        'train tiny.py --resume --cfg-options train_cfg.max_epochs=2',
        'test tiny.py run/epoch_2.pth --work-dir there --out predictions.pkl'):
    try:
        main(words.split())
    except SystemExit as end:
        assert end.code is None, end.code
"""
    done = subprocess.run([sys.executable, '-c', program], cwd=tmp_path, capture_output=True, text=True,
                          env=dict(os.environ, PYTHONPATH=f'{ROOT / "tests"}{os.pathsep}{ROOT}'))
    assert done.returncode == 0, done.stderr
    assert 'run/epoch_1.pth' in done.stdout + done.stderr
    assert (tmp_path / 'there').is_dir()
    assert len(pickle.loads((tmp_path / 'predictions.pkl').read_bytes())) == 4


def run_arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_run_arguments(parser)
    return parser.parse_args(words)


def test_run_config_has_the_parts_of_a_run_unless_it_is_bare():
    cfg = load_run_config(run_arguments(SHAPES, '--cfg-options', 'train_cfg.max_iters=7'))
    assert cfg.train_cfg.max_iters == 7
    assert cfg.work_dir == f'work_dirs/{SHAPES}'
    assert cfg.default_hooks.checkpoint.type == 'knet_plugin.CheckpointHook'
    assert {'knet_plugin.FiniteInputHook', 'knet_plugin.SafeLoadingHook'} <= {hook.type for hook in cfg.custom_hooks}
    bare = load_run_config(run_arguments(SHAPES, '--bare', '--work-dir', 'mine'))
    assert bare.work_dir == 'mine'
    assert bare.default_hooks == Config.fromfile(resolve_config(SHAPES)).default_hooks


def test_loading_without_processes():
    cfg = load_run_config(run_arguments(SHAPES, '--cfg-options', 'train_dataloader.num_workers=0',
                                        'train_dataloader.persistent_workers=True'))
    assert not cfg.train_dataloader.persistent_workers


def test_unknown_config_ends_a_script_with_suggestions(wheel_like):
    with pytest.raises(SystemExit, match='knet_tow.*knet_two'):
        load_run_config(run_arguments('knet_tow'))


def test_amp_switches_the_wrapper():
    cfg = Config({'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD'}}})
    tool('train').enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    with pytest.raises(SystemExit, match='ApexOptimWrapper'):
        tool('train').enable_amp(Config({'optim_wrapper': {'type': 'ApexOptimWrapper'}}))


def test_lr_scaling_needs_a_base():
    cfg = Config({'auto_scale_lr': {'enable': False, 'base_batch_size': 16}})
    tool('train').enable_lr_scaling(cfg)
    assert cfg.auto_scale_lr.enable is True
    with pytest.raises(SystemExit, match='base_batch_size'):
        tool('train').enable_lr_scaling(Config({}))


def test_resuming_without_a_checkpoint_hook(tmp_path):
    cfg = Config({'work_dir': str(tmp_path), 'default_hooks': {'checkpoint': None}})
    assert str(tmp_path) in tool('train').resume_from(cfg, 'auto')[0]
    assert 'resume' not in cfg


def test_tta_wraps_the_model_and_feeds_the_innermost_dataset():
    cfg = Config({'model': {'type': 'EncoderDecoder'}, 'tta_model': {'type': 'SegTTAModel'},
                  'tta_pipeline': [{'type': 'TestTimeAug'}],
                  'test_dataloader': {'dataset': {'type': 'Repeat', 'dataset': {'pipeline': []}}}})
    tool('test').enable_tta(cfg)
    assert cfg.model == {'type': 'SegTTAModel', 'module': {'type': 'EncoderDecoder'}}
    assert cfg.test_dataloader.dataset.dataset.pipeline == [{'type': 'TestTimeAug'}]
    with pytest.raises(SystemExit, match='tta_model and tta_pipeline'):
        tool('test').enable_tta(Config({'model': {}}))


def test_predictions_are_saved_as_the_config_allows():
    save = tool('test').save_predictions
    semantic = Config({'default_scope': 'mmseg', 'test_evaluator': {'type': 'IoUMetric'}})
    save(semantic, 'folder')
    assert semantic.test_evaluator == [{'type': 'IoUMetric', 'output_dir': 'folder'}]
    detection = Config({'default_scope': 'mmdet', 'test_evaluator': [{'type': 'CocoMetric'}]})
    save(detection, 'file.pkl')
    assert detection.test_evaluator == [{'type': 'CocoMetric'}, {'type': 'DumpDetResults', 'out_file_path': 'file.pkl'}]
    with pytest.raises(SystemExit, match='--out folder'):
        save(detection, 'folder')


def test_pictures_of_a_test_have_one_folder_rule():
    cfg = Config({'custom_hooks': [{'type': 'Other'}]})
    tool('test').enable_pictures(cfg, 'drawn', 0.5)
    assert cfg.custom_hooks[1] == {'type': 'knet_plugin.PictureHook', 'out_dir': os.path.abspath('drawn'),
                                   'score_thr': 0.5}


def test_windows_need_the_hook_of_the_host():
    cfg = Config({'default_hooks': {'visualization': {'type': 'SegVisualizationHook'}}})
    tool('test').enable_windows(cfg, 1)
    assert cfg.default_hooks.visualization.draw is cfg.default_hooks.visualization.show is True
    with pytest.raises(SystemExit, match='default_hooks.visualization'):
        tool('test').enable_windows(Config({}), 1)
