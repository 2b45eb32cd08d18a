"""What our tools add to a config."""

import copy

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS

from knet_plugin.engine import CheckpointHook
from knet_plugin.engine.run_config import add_run_parts

ADDED = [dict(type=f'knet_plugin.{name}') for name in ('DataCheckHook', 'FiniteInputHook', 'SafeLoadingHook')]


def changed(**content) -> dict:
    cfg = Config(content)
    add_run_parts(cfg)
    once = copy.deepcopy(cfg.to_dict())
    add_run_parts(cfg)
    assert cfg.to_dict() == once
    for hook in [*cfg.custom_hooks, *filter(None, cfg.get('default_hooks', {}).values())]:
        assert HOOKS.get(hook['type']) is not None
    return once


def test_hooks_are_added_once():
    assert changed(custom_hooks=None)['custom_hooks'] == ADDED
    assert changed(custom_hooks=ADDED[1:])['custom_hooks'] == [*ADDED[1:], ADDED[0]]
    own = [ADDED[0], dict(type='EMAHook')]
    assert changed(custom_hooks=own)['custom_hooks'] == [*own, *ADDED[1:]]


@pytest.mark.parametrize('name', ['CheckpointHook', 'mmengine.CheckpointHook'])
def test_mmengines_checkpoint_hook_is_replaced(name):
    cfg = changed(default_hooks=dict(checkpoint=dict(type=name, interval=3), timer=dict(type='IterTimerHook')))
    assert cfg['default_hooks'] == dict(checkpoint=dict(type='knet_plugin.CheckpointHook', interval=3),
                                        timer=dict(type='IterTimerHook'))
    assert HOOKS.get('knet_plugin.CheckpointHook') is CheckpointHook


def test_a_config_without_checkpoint_hook_gets_one():
    """mmengine would add its own."""
    assert changed()['default_hooks'] == dict(checkpoint=dict(type='knet_plugin.CheckpointHook', interval=1))


def test_other_choices_stay():
    assert changed(default_hooks=dict(checkpoint=None))['default_hooks'] == dict(checkpoint=None)
    own = dict(checkpoint=dict(type='EMAHook'))
    assert changed(default_hooks=own)['default_hooks'] == own
