"""``knet demo`` as a command."""

import json
import socket
import subprocess
import sys
import urllib.request

import pytest
from small_predictors import small_run

from knet_plugin.web import command


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return str(small_run('semantic', tmp_path_factory.mktemp('demo') / 'run'))


def start(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['demo', *map(str, arguments)])
    return command.main()


def test_it_says_where_the_page_is(run):
    words = [sys.executable, '-m', 'knet_plugin', 'demo', run, '--port', '0']
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().split()[0]
            with urllib.request.urlopen(f'{address}models') as answer:
                assert json.load(answer)['models'] == ['run']
        finally:
            process.terminate()
    assert address.startswith('http://127.0.0.1:')


def test_a_port_in_use_is_an_error(run, monkeypatch):
    with socket.create_server(('127.0.0.1', 0)) as listener:
        port = listener.getsockname()[1]
        assert f'127.0.0.1:{port}' in start(monkeypatch, run, '--port', port)


def test_bad_models_and_images_are_errors(run, tmp_path, monkeypatch):
    assert 'nowhere' in start(monkeypatch, tmp_path / 'nowhere')
    assert 'holds no image' in start(monkeypatch, run, '--images', tmp_path)


def test_a_missing_package_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, 'uvicorn', None)
    assert 'uvicorn: pip install "knet_plugin[demo]"' in start(monkeypatch, run)


def test_without_a_clone_a_model_must_be_named(monkeypatch, tmp_path):
    monkeypatch.setattr(command, 'resource_root', lambda: tmp_path)
    assert 'name a model' in start(monkeypatch)


def test_the_package_does_not_import_what_only_the_page_needs():
    code = 'import sys, knet_plugin; print([name for name in ("starlette", "uvicorn") if name in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == '[]'
