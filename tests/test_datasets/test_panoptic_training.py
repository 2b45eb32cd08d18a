from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from odd_data import NAMES, each_object, odd_data, without_isthing

CONFIG = Path(__file__).parents[2] / 'configs/panoptic/knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128.py'


def test_training_and_validation(tmp_path):
    """Stuff before things, no isthing, no iscrowd, images and PNGs in folders, and an object that cannot be drawn."""
    def edit(content):
        each_object(lambda each: each.pop('iscrowd'))(content)
        without_isthing(content)
        if 'segments_info' not in content['annotations'][0]:
            content['annotations'][0]['segmentation'] = []

    root = odd_data(tmp_path / 'data', image_name='images/a/{}.jpeg', png_name='b/{}_pan.png', edit=edit)
    metainfo = dict(classes=['sky', 'cat', 'grass', 'dog'], thing_classes=['cat', 'dog'])
    runner = Runner.from_cfg(small_config(root, tmp_path / 'run', metainfo))
    runner.train()
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    assert len(losses) == 2 and np.isfinite(losses).all()
    figures = runner.message_hub.log_scalars
    for name in ('coco_panoptic/PQ', 'coco/segm_mAP', 'mIoU'):
        assert np.isfinite(figures[f'val/{name}'].current())
    assert runner.val_loop.dataloader.dataset.metainfo['classes'] == NAMES


def small_config(root: Path, work_dir: Path, metainfo: dict) -> Config:
    """Two iterations and a validation of a small panoptic K-Net, on the data of ``odd_data``."""
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.in_channels = [8, 16, 32, 64]
    cfg.model.panoptic_head.update(num_things_classes=2, num_stuff_classes=2)
    dataset = dict(ann_file='panoptic.json', data_root=f'{root}/', data_prefix=dict(img='', seg='png/'))
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].update(batch_size=2, num_workers=0, persistent_workers=False)
        cfg[name].dataset.update(dataset)
        cfg[name].dataset.metainfo = metainfo
    cfg.val_evaluator[0].update(ann_file=f'{root}/panoptic.json', seg_prefix=f'{root}/png/')
    cfg.val_evaluator[1].update(ann_file=f'{root}/instances.json')
    cfg.test_evaluator = cfg.val_evaluator
    # It expects mmdet's labels, in the order of the file.
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks', []) if 'ClassCheckHook' not in hook['type']]
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=False)
    cfg.merge_from_dict(dict(work_dir=str(work_dir), log_level='ERROR', experiment_name=work_dir.parent.name))
    return cfg
