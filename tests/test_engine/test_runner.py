"""Building runners."""

from mmengine.config import Config
from mmengine.runner import Runner
from tiny_runs import tiny_config

from knet_plugin.engine.runner import build_runner


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
