"""Work folders of small models with random weights, for the tests of predictions."""

from pathlib import Path

import torch
from mmengine.registry import MODELS, DefaultScope
from small_runs import small_config

CLASSES = ('warm_disk', 'cool_disk', 'warm_square', 'cool_square', 'ring', 'star', 'warm_stripes', 'cool_stripes',
           'warm_checks', 'cool_checks')


def small_run(task: str, folder: Path, **options) -> Path:
    """Write config and checkpoint of a model as a training leaves them; ``options`` as those of ``small_config``."""
    folder.mkdir(parents=True)
    cfg = small_config(task, Path('no_data'), 10, **options)
    cfg.pop('custom_imports')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()
    meta = dict(cfg.test_dataloader.dataset.metainfo)
    cfg.dump(folder / 'config.py')
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=meta)), folder / 'iter_10.pth')
    return folder
