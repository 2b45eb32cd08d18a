"""The progress line."""

import io
import re

import pytest
import torch
from mmengine.runner import Runner
from tiny_runs import tiny_config

from knet_plugin.engine.console import quiet_console
from knet_plugin.engine.progress import kind_of_loss, losses_by_kind


@pytest.mark.parametrize(('name', 'kind'), [
    ('s0.loss_mask', 'mask'), ('loss_seg', 'seg'), ('s2.loss_cls', 'class'), ('decode.loss_ce.s1', 'ce'),
    ('aux.loss_dice', 'dice'), ('d0.dice_loss', 'dice'), ('loss', 'loss')])
def test_kind_of_loss(name, kind):
    assert kind_of_loss(name) == kind


def test_losses_are_summed_by_kind():
    losses = {'s0.loss_mask': 1., 's0.loss_cls': 2., 's1.loss_mask': 4., 'loss_seg': 8.}
    assert losses_by_kind(losses) == dict(mask=5, seg=8) | {'class': 2.}


@pytest.fixture
def two_losses(monkeypatch):
    from tiny_runs import Line

    def forward(self, x, mode='loss'):
        loss = self.layer(torch.stack(x)).square().mean()
        return {'s0.loss_mask': loss, 's1.loss_mask': loss, 'loss_seg': loss.detach() * 0 + 2.} if mode == 'loss' else x

    monkeypatch.setattr(Line, 'forward', forward)


def train(work_dir, **options) -> None:
    cfg = tiny_config(work_dir, 3, custom_hooks=[dict(type='knet_plugin.ProgressHook')], **options)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=4)
    Runner.from_cfg(cfg).train()


def test_lines_of_a_log(tmp_path, capsys, two_losses):
    with quiet_console():
        train(tmp_path / 'run')
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('iter ')]
    assert [re.match(r'iter (\d/6)  eta 0:00:\d\d  loss ', line)[1] for line in lines] == ['1/6', '4/6', '6/6']
    assert re.search(r'  lr 1\.0e-01  .*  mask \d\S*  seg 2$', lines[0])


def test_a_terminal_shows_every_iteration_in_place(tmp_path, monkeypatch, two_losses):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr('sys.stdout', stream)
    with quiet_console():
        train(tmp_path / 'run')
    assert re.findall(r'iter (\d)/6', stream.getvalue()) == list('123456')
    assert stream.getvalue().count('\n') == 1  # where the log file is
    assert stream.getvalue().endswith('\r\x1b[K')


def test_evaluation(tmp_path, monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr('sys.stdout', stream)
    cfg = tiny_config(tmp_path / 'run', custom_hooks=[dict(type='knet_plugin.ProgressHook')])
    with quiet_console():
        Runner.from_cfg(cfg).test()
    assert all(f'test {number}/2  eta 0:00:0' in stream.getvalue() for number in (1, 2))


def test_outside_our_console_the_hosts_show_the_progress(tmp_path, capsys):
    train(tmp_path / 'run')
    assert 'iter ' not in capsys.readouterr().out
