"""Learn real images by heart through ``mim``: train, test the checkpoint, resume. Skipped where the images are not."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from official_configs import official_config

from knet_plugin.migration import load_source, migrate_config

SAMPLES = Path(__file__).resolve().parents[2] / 'shared/real_samples'
CONFIG = Path(__file__).parent / 'configs/overfit_real.py'
PANOPTIC = Path(__file__).parent / 'configs/overfit_real_panoptic.py'

# The loss over 150 classes at full size makes arrays of a hundred megabytes; handing their memory back to the system
# each time would take a third of the training.
KEEP_MEMORY = dict(MALLOC_MMAP_MAX_='0', MALLOC_TRIM_THRESHOLD_='100000000000')

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SAMPLES.is_dir(), reason='the real images are not here')]


def mim(command, *arguments, cwd, config=CONFIG, **environment):
    """Run ``mim train|test knet_plugin`` and return what it printed."""
    done = subprocess.run([sys.executable, '-m', 'mim', command, 'knet_plugin', str(config), *map(str, arguments)],
                          cwd=cwd, capture_output=True, text=True, env=dict(os.environ, **KEEP_MEMORY, **environment))
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


def mean_iou(output):
    """The last mIoU of a log; of the classes that occur, because mmseg's mean leaves out those that are nowhere."""
    return float(re.findall(r'mIoU: ([\d.]+)', output)[-1])


def overfit(root, work_dir, iterations, options):
    """Train, test, resume for ten iterations; returns the measured mIoU."""
    options = [f'{loader}.dataset.data_root={root}' for loader in ('train_dataloader', 'val_dataloader',
                                                                   'test_dataloader')] + options
    options += ['default_hooks.logger.interval=10', 'randomness.seed=0', f'param_scheduler.1.end={iterations}']
    common = ['--work-dir', work_dir, '--cfg-options', *options]
    schedule = [f'train_cfg.max_iters={iterations}', f'train_cfg.val_interval={iterations}',
                f'default_hooks.checkpoint.interval={iterations}']
    trained = mean_iou(mim('train', *common, *schedule, cwd=work_dir.parent))
    checkpoint = work_dir / f'iter_{iterations}.pth'
    tested = mean_iou(mim('test', '--checkpoint', checkpoint, *common, cwd=work_dir.parent))
    assert tested == pytest.approx(trained, abs=0.01)

    more = [f'train_cfg.max_iters={iterations + 10}', f'train_cfg.val_interval={iterations + 10}']
    output = mim('train', '--resume', 'auto', *common, *more, cwd=work_dir.parent)
    assert f'resumed epoch: 0, iter: {iterations}' in output
    assert f'[{iterations + 10}/{iterations + 10}]' in output
    assert mean_iou(output) == pytest.approx(trained, abs=5)
    return trained


@pytest.mark.long
def test_ade20k(tmp_path):
    """Three images, 150 classes."""
    figure = overfit(SAMPLES / 'ade20k', tmp_path / 'work', 300, [])
    print(f'mIoU {figure}')
    assert figure > 80


def label_maps(root, number):
    """The first images of the COCO sample with label maps in ADE20K's form, made from the panoptic annotations."""
    source = SAMPLES / 'coco_train100'
    panoptic = json.loads((source / 'annotations/panoptic.json').read_text())
    label_of = {category['id']: i + 1 for i, category in enumerate(panoptic['categories'])}
    for folder in ('images', 'annotations'):
        (root / folder).mkdir(parents=True)
    for annotation in sorted(panoptic['annotations'], key=lambda a: a['image_id'])[:number]:
        blue, green, red = np.moveaxis(cv2.imread(str(source / 'annotations/panoptic' / annotation['file_name'])), 2, 0)
        ids = red.astype(int) + 256 * green.astype(int) + 256**2 * blue.astype(int)
        labels = np.zeros(ids.shape, np.uint8)
        for segment in annotation['segments_info']:
            labels[ids == segment['id']] = label_of[segment['category_id']]
        name = Path(annotation['file_name']).stem
        shutil.copy(source / f'images/{name}.jpg', root / 'images')
        cv2.imwrite(str(root / f'annotations/{name}.png'), labels)
    return len(label_of)


@pytest.mark.long
def test_coco_as_label_maps(tmp_path):
    """Twenty images, 133 classes."""
    classes = label_maps(tmp_path / 'data', 20)
    names = '[' + ','.join(f'c{i}' for i in range(classes)) + ']'
    head = 'model.decode_head.kernel_generate_head'
    # A stage more and smaller pictures than for three images, all of one shape so that no batch is padded: there is
    # more to learn, in bearable time.
    options = [f'{head}.num_classes={classes}', f'{head}.in_channels=128', f'{head}.in_index=2',
               f'{head}.channels=128', 'model.backbone.num_stages=3', 'model.backbone.out_indices=(0,1,2)',
               'model.backbone.strides=(1,1,1)', 'model.backbone.dilations=(1,1,2)', 'train_dataloader.batch_size=4',
               'optim_wrapper.optimizer.lr=0.0015']
    for resize in ('train_dataloader.dataset.pipeline.2', 'val_dataloader.dataset.pipeline.1',
                   'test_dataloader.dataset.pipeline.1'):
        options += [f'{resize}.scale=(128,128)', f'{resize}.keep_ratio=False']
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        options += [f'{loader}.dataset.type=BaseSegDataset', f'{loader}.dataset.metainfo.classes={names}',
                    f'{loader}.dataset.reduce_zero_label=True']
    figure = overfit(tmp_path / 'data', tmp_path / 'work', 1500, options)
    print(f'mIoU {figure}')
    assert figure > 80


BALL = 15
"""PQ that depends on a single object of 175 pixels, the only one of its class, which rounding may decide about."""


def panoptic_figures(output):
    """The last PQ, mask AP and mIoU of a log, in percent."""
    pq, ap, miou = (float(re.findall(rf'{name}: ([\d.]+)', output)[-1])
                    for name in ('coco_panoptic/PQ', 'coco/segm_mAP', r'\bmIoU'))
    return pq, 100 * ap, miou


def overfit_panoptic(root, work_dir, iterations, options):
    """Train, test, resume for ten iterations; returns the measured PQ, AP and mIoU."""
    def run(command, *arguments):
        return mim(command, *arguments, cwd=work_dir.parent, config=PANOPTIC, REAL_IMAGES=str(root))

    warmup = iterations // 10
    common = ['--work-dir', work_dir, '--cfg-options', 'randomness.seed=0', f'param_scheduler.0.end={warmup}',
              f'param_scheduler.1.begin={warmup}', f'param_scheduler.1.end={iterations}', *options]
    schedule = [f'train_cfg.max_iters={iterations}', f'train_cfg.val_interval={iterations}',
                f'default_hooks.checkpoint.interval={iterations}']
    trained = panoptic_figures(run('train', *common, *schedule))
    tested = panoptic_figures(run('test', '--checkpoint', work_dir / f'iter_{iterations}.pth', *common))
    assert tested == pytest.approx(trained, abs=0.01)
    more = [f'train_cfg.max_iters={iterations + 10}', f'train_cfg.val_interval={iterations + 10}']
    output = run('train', '--resume', 'auto', *common, *more)
    assert f'resumed epoch: 0, iter: {iterations}' in output
    assert panoptic_figures(output) == pytest.approx(trained, abs=BALL)
    return trained


def resized(width, height):
    """Options for images of another size."""
    return [f'{resize}.scale=({width},{height})' for resize in (
        'train_dataloader.dataset.pipeline.2', 'val_dataloader.dataset.pipeline.1',
        'test_dataloader.dataset.pipeline.1')]


@pytest.mark.long
def test_coco_panoptic(tmp_path):
    """Two images with 40 objects and 133 classes: panoptic, instance and semantic segmentation in one run."""
    figures = overfit_panoptic(SAMPLES / 'coco', tmp_path / 'work', 600, [])
    print('PQ, AP, mIoU', figures)
    assert figures[0] > 85 - BALL and figures[1] > 70


def first_images(root, number):
    """The first images of the larger COCO sample, in the same layout."""
    source = SAMPLES / 'coco_train100'
    (root / 'annotations').mkdir(parents=True)
    (root / 'images').symlink_to(source / 'images')
    (root / 'annotations/panoptic').symlink_to(source / 'annotations/panoptic')
    panoptic = json.loads((source / 'annotations/panoptic.json').read_text())
    chosen = {image['id'] for image in sorted(panoptic['images'], key=lambda image: image['id'])[:number]}
    for name in ('panoptic', 'instances'):
        content = json.loads((source / f'annotations/{name}.json').read_text())
        content['images'] = [image for image in content['images'] if image['id'] in chosen]
        content['annotations'] = [ann for ann in content['annotations'] if ann['image_id'] in chosen]
        (root / f'annotations/{name}.json').write_text(json.dumps(content))


@pytest.mark.long
def test_coco_panoptic_twenty(tmp_path):
    """Twenty images: smaller, with fewer kernels and masks at stride 4, because there is ten times more to learn."""
    first_images(tmp_path / 'data', 20)
    options = ['train_dataloader.batch_size=4', 'optim_wrapper.optimizer.lr=0.0015',
               'model.panoptic_head.mask_upsample=1', 'model.panoptic_head.kernel_head.num_kernels=40',
               *resized(256, 192)]
    figures = overfit_panoptic(tmp_path / 'data', tmp_path / 'work', 1200, options)
    print('PQ, AP, mIoU', figures)
    assert figures[0] > 50


def migrated_run(cfg, folder, *options):
    """``mim train`` on a migrated config, from a file."""
    cfg.dump(folder / 'migrated.py')
    options = ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
               'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False', *options]
    return mim('train', '--work-dir', folder / 'work', '--cfg-options', *options, cwd=folder,
               config=folder / 'migrated.py')


def test_a_migrated_official_detector_trains_and_tests(tmp_path):
    root = SAMPLES / 'coco'
    cfg = migrate_config(official_config('knet_s3_r50_fpn_1x_coco-panoptic'))
    del cfg.model.backbone.init_cfg
    options = ['train_cfg.max_epochs=1']
    for loader in ('train_dataloader', 'val_dataloader'):
        options += [f'{loader}.dataset.{key}={value}' for key, value in {
            'data_root': root, 'ann_file': 'annotations/panoptic.json', 'data_prefix.img': 'images/',
            'data_prefix.seg': 'annotations/panoptic/'}.items()]
    options += [*resized(192, 128), f'val_evaluator.0.ann_file={root}/annotations/panoptic.json',
                f'val_evaluator.0.seg_prefix={root}/annotations/panoptic/',
                f'val_evaluator.1.ann_file={root}/annotations/instances.json']
    output = migrated_run(cfg, tmp_path, *options)
    assert len(panoptic_figures(output)) == 3
    losses = re.findall(r' loss: ([\d.naif]+)', output)
    assert losses and all(np.isfinite(float(loss)) for loss in losses)


def test_a_migrated_mmseg_config_trains_and_tests(tmp_path):
    cfg = migrate_config(load_source('mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py'))
    for norm_cfg in (cfg.model.backbone, cfg.model.auxiliary_head, cfg.model.decode_head.kernel_generate_head):
        norm_cfg.norm_cfg.type = 'BN'
    cfg.model.pretrained = None
    options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.logger.interval=1',
               'train_dataloader.dataset.pipeline.3.crop_size=(64,64)', 'model.data_preprocessor.size=(64,64)',
               *resized(256, 128)]
    for loader in ('train_dataloader', 'val_dataloader'):
        options += [f'{loader}.dataset.{key}={value}' for key, value in {
            'data_root': SAMPLES / 'ade20k', 'data_prefix.img_path': 'images',
            'data_prefix.seg_map_path': 'annotations'}.items()]
    output = migrated_run(cfg, tmp_path, *options)
    assert mean_iou(output) >= 0
    losses = re.findall(r' loss: ([\d.naif]+)', output)
    assert len(losses) == 2 and all(np.isfinite(float(loss)) for loss in losses)
