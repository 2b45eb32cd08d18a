"""What a run shows, and what only the log file gets."""

import io
import sys
import warnings
from collections import OrderedDict

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log

import knet_plugin
from knet_plugin.engine.console import Screen, current_screen, quiet_console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run_as(module: str, code: str, file: str = 'user.py') -> None:
    """Run code as a module of that name."""
    exec(compile(code, file, 'exec'), {'__name__': module})


@pytest.fixture
def logged(tmp_path, monkeypatch):
    """A function that returns what the log file holds; inside ``quiet_console``, make the logger with it first."""
    path = tmp_path / 'run.log'
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())

    def read() -> str:
        if not MMLogger.check_instance_created(tmp_path.name):
            MMLogger.get_instance(tmp_path.name, log_file=str(path), log_level='INFO')
        return path.read_text()

    return read


def test_prints_of_hosts_go_to_the_log_file(logged, capsys):
    with quiet_console():
        run_as('pycocotools.coco', 'print("loading", 1)')  # before there is a log file
        logged()
        run_as('mmdet.datasets', 'print("a\\nb", end="")')
        run_as('mmdet.datasets', 'print("c")')
        run_as('user_dataset', 'print("mine")')
        assert capsys.readouterr().out == 'mine\n'
    assert all(words in logged() for words in ('loading 1\n', 'a\n', 'bc\n'))
    assert 'mine' not in logged()


def test_an_incomplete_line_appears_when_it_is_flushed(capsys):
    with quiet_console():
        print('(Pdb) ', end='', flush=True)
        assert capsys.readouterr().out == '(Pdb) '


def test_log_records_below_warnings_are_hidden(logged, capsys):
    with quiet_console():
        logged()
        for level, name in ((20, 'note'), (30, 'warned'), (40, 'failed'), (30, 'old will be deprecated')):
            run_as('mmdet.models', f'from mmengine.logging import print_log; print_log({name!r}, "current", {level})')
    assert capsys.readouterr().out == 'warning: warned\nerror: failed\n'
    assert all(name in logged() for name in ('note', 'warned', 'failed', 'deprecated'))


def test_what_our_own_tools_log_is_shown(logged, capsys):
    with quiet_console():
        logged()
        MMLogger.get_current_instance().info('weights fit')
        print_log('4 pictures', 'current')
    assert capsys.readouterr().out == 'weights fit\n4 pictures\n' and '4 pictures' in logged()


def test_warnings_of_hosts_go_to_the_log_file(logged, capsys):
    before = warnings.showwarning
    code = 'import warnings; warnings.warn("old", FutureWarning)'
    with quiet_console():
        logged()
        warnings.simplefilter('always')
        run_as('torch.fake', code, '/lib/site-packages/torch/fake.py')
        run_as('user', code.replace('old', 'mine'))
    assert capsys.readouterr() == ('warning: mine\n', '')
    assert 'FutureWarning: old' in logged()
    assert warnings.showwarning is before


def test_notices_of_the_import_go_to_the_log_file(logged, capsys, monkeypatch):
    monkeypatch.setattr(knet_plugin, 'import_notices', ['timm is missing'])
    with quiet_console():
        logged()
        run_as('mmcv', 'print()')
    assert 'timm is missing' in logged() and capsys.readouterr().out == ''


def test_the_console_is_restored():
    stdout = sys.stdout
    with pytest.raises(ZeroDivisionError), quiet_console() as screen:
        assert current_screen() is screen and sys.stdout is not stdout
        assert Config(dict(a=1)).a / 0
    assert current_screen() is None and sys.stdout is stdout


def test_a_terminal_replaces_its_last_line():
    stream = Terminal()
    screen = Screen(stream)
    screen.status('iter 1')
    screen.status('iter 2' + 1000 * 'x')
    screen.line('table')
    screen.close()
    lines = stream.getvalue().split('\r\x1b[K')
    assert [line[:6] for line in lines] == ['iter 1', 'iter 2', 'table\n', '']
    assert lines[2].startswith('table\niter 2x') and len(lines[1]) < 1000


def test_a_file_gets_no_status():
    stream = io.StringIO()
    screen = Screen(stream)
    screen.status('iter 1')
    screen.line('table')
    screen.close()
    assert stream.getvalue() == 'table\n'
