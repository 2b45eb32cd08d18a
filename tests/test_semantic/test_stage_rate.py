"""The learning rate of the stages that ``attach`` adds, for each kind of optimizer."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from knet_plugin import attach
from knet_plugin.cli import resolve_config
from knet_plugin.migration import load_source
from knet_plugin.semantic.attach import attached_text
from knet_plugin.semantic.stage_rate import PUBLISHED_LR, stage_custom_keys

PAGE = Path(__file__).resolve().parents[2] / 'docs/decode_heads.md'
FCN = 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'
SEGFORMER = 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
LAYER_DECAY = dict(constructor='LearningRateDecayOptimizerConstructor', optimizer=dict(type='AdamW', lr=1e-3))


def config(kind='AdamW', lr=1e-3, **keys):
    paramwise = dict(paramwise_cfg=dict(norm_decay_mult=0., custom_keys=keys)) if keys else {}
    return dict(optim_wrapper=dict(optimizer=dict(type=kind, lr=lr), **paramwise))


@pytest.mark.parametrize(('cfg', 'given', 'expected'), [
    (config(), None, 0.1), (config('Adam', 3e-4), None, 0.33), (config(lr=1e-4), None, None),
    (config(lr=1e-4, head=dict(lr_mult=10.)), None, 1), (config(lr=6e-5, head=dict(lr_mult=10.)), None, 1.7),
    (config(kernel_update_head=dict(lr_mult=0.5)), None, None), (config('SGD', 0.01), None, None),
    (config('SGD', 0.01, head=dict(lr_mult=10.)), None, None), (config('SGD', 0.01), 3, 3),
    (config(kernel_update_head=dict(lr_mult=0.5)), 0.5, None), (config(kernel_update_head=dict(lr_mult=0.5)), 2, 2),
    (dict(optim_wrapper=LAYER_DECAY), None, None), (dict(), None, None)])
def test_entry(cfg, given, expected):
    entry = {} if expected is None else dict(kernel_update_head=dict(lr_mult=expected))
    assert stage_custom_keys(cfg, given) == entry


def test_other_settings_of_the_entry_stay():
    cfg = config(kernel_update_head=dict(lr_mult=0.5, decay_mult=0.))
    assert stage_custom_keys(cfg, 2) == dict(kernel_update_head=dict(lr_mult=2, decay_mult=0.))


@pytest.mark.parametrize(('cfg', 'given', 'named'), [
    (config(), 0, 'lr_mult=0'), (dict(), 0.2, 'optim_wrapper.optimizer'),
    (dict(optim_wrapper=LAYER_DECAY), 0.2, 'LearningRateDecayOptimizerConstructor')])
def test_nothing_is_ignored_silently(cfg, given, named):
    with pytest.raises(ValueError, match=named):
        stage_custom_keys(cfg, given)


@pytest.mark.parametrize(('base', 'given', 'rate'), [(SEGFORMER, None, 1.02e-4), (SEGFORMER, 0.5, 3e-5),
                                                     (FCN, None, 0.01), (FCN, 0.5, 0.005)])
def test_the_optimizer_gets_the_rate(base, given, rate, tmp_path):
    """Also from the text, whose entry joins those of the base."""
    stock = load_source(base)
    (tmp_path / 'mine.py').write_text(attached_text(base, stock, lr_mult=given))
    for cfg in (attach(stock, lr_mult=given), Config.fromfile(tmp_path / 'mine.py')):
        keys = (cfg.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
        assert keys.keys() >= ((stock.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}).keys()
        stages, classifier = nn.Linear(2, 2), nn.Linear(2, 2)
        head = nn.ModuleDict(dict(kernel_update_head=nn.ModuleList([stages]), kernel_generate_head=classifier))
        wrapper = build_optim_wrapper(nn.ModuleDict(dict(decode_head=head)), cfg.optim_wrapper)
        rates = {id(parameter): group['lr'] for group in wrapper.param_groups for parameter in group['params']}
        assert rates[id(stages.weight)] == pytest.approx(rate)
        assert rates[id(classifier.weight)] == pytest.approx(6e-4 if base == SEGFORMER else 0.01)


def test_the_schedule_that_the_page_offers_for_sgd(tmp_path):
    lines, = re.findall(r'```python\n(optim_wrapper.*?)```', PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / 'mine.py').write_text(attached_text(FCN, load_source(FCN)) + lines)
    cfg = Config.fromfile(tmp_path / 'mine.py')
    wrapper = build_optim_wrapper(nn.Linear(2, 2), cfg.optim_wrapper)
    assert isinstance(wrapper.optimizer, torch.optim.AdamW) and wrapper.optimizer.defaults['lr'] == PUBLISHED_LR
    published = Config.fromfile(resolve_config('knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512'))
    assert cfg.optim_wrapper == published.optim_wrapper and cfg.param_scheduler == published.param_scheduler
