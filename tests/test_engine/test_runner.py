"""What our tools add to a config, and building runners."""

import copy

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tiny_runs import tiny_config

from knet_plugin.engine import CheckpointHook
from knet_plugin.engine.runner import add_run_parts, build_runner

ADDED = [dict(type=f'knet_plugin.{name}') for name in ('DataCheckHook', 'FiniteInputHook', 'SafeLoadingHook',
                                                       'ProgressHook', 'ValidationReportHook', 'SheetHook', 'StopHook')]
PANOPTIC = dict(type='CocoPanopticMetric')
INSTANCES = dict(type='mmdet.CocoMetric', metric=['bbox', 'segm'])
SEMANTIC = dict(type='IoUMetric', iou_metrics=['mIoU'])


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


@pytest.mark.parametrize(('evaluator', 'key'), [
    (SEMANTIC, 'mIoU'), (dict(type='IoUMetric'), 'mIoU'), (dict(SEMANTIC, prefix='road'), 'road/mIoU'),
    (INSTANCES, 'coco/segm_mAP'), (dict(type='CocoMetric'), 'coco/bbox_mAP'),
    (dict(type='knet_plugin.InstanceMetric', metric='segm'), 'coco/segm_mAP'),
    ([INSTANCES, PANOPTIC], 'coco_panoptic/PQ'), ([dict(PANOPTIC, format_only=True), SEMANTIC], 'mIoU')])
def test_the_best_checkpoint_is_kept_by_the_metric_of_the_task(evaluator, key):
    hook = changed(val_evaluator=evaluator, val_cfg=dict())['default_hooks']['checkpoint']
    assert (hook['save_best'], hook['rule']) == (key, 'greater')


@pytest.mark.parametrize('content', [
    dict(val_evaluator=SEMANTIC), dict(val_evaluator=None, val_cfg=None),
    dict(val_evaluator=dict(type='Count'), val_cfg=dict()),
    dict(val_evaluator=dict(SEMANTIC, iou_metrics=['mDice']), val_cfg=dict())])
def test_no_best_checkpoint_without_validation_or_known_metric(content):
    assert 'save_best' not in changed(**content)['default_hooks']['checkpoint']


@pytest.mark.parametrize('choice', [None, 'aAcc'])
def test_the_configs_own_choice_of_the_best_checkpoint_stays(choice):
    own = dict(checkpoint=dict(type='CheckpointHook', save_best=choice))
    hook = changed(val_evaluator=SEMANTIC, val_cfg=dict(), default_hooks=own)['default_hooks']['checkpoint']
    assert hook['save_best'] == choice and 'rule' not in hook


def test_the_text_of_a_config_is_formatted_once(tmp_path, monkeypatch):
    texts: list[str] = []
    formatted = Config.pretty_text.fget
    monkeypatch.setattr(Config, 'pretty_text', property(lambda cfg: texts.append(formatted(cfg)) or texts[-1]))
    cfg = tiny_config(tmp_path / 'run', 2)
    cfg.dump(tmp_path / 'tiny.py')
    texts.clear()
    runner = build_runner(Config.fromfile(tmp_path / 'tiny.py'))
    runner.train()
    assert type(runner) is Runner and len(texts) == 1
    assert (tmp_path / 'run/tiny.py').read_text() == texts[0]
    assert Config.fromfile(tmp_path / 'run/tiny.py').to_dict() == cfg.to_dict()


def test_a_changed_config_has_another_text(tmp_path):
    runner = build_runner(tiny_config(tmp_path / 'run'))
    before = runner.cfg.pretty_text
    runner.cfg.resume = 'changed'
    assert before != runner.cfg.pretty_text and 'changed' in runner.cfg.pretty_text
