"""Train a small panoptic K-Net on made-up images, ask it all three questions in one pass, and draw its answers.

Everything comes from a stock-style config of this package; the same is done by hand with ``tools/make_shapes.py``,
``tools/train.py`` and ``tools/test.py``. Run again after an interruption, it goes on where it was.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from demo_common import draw_grid, make_data, paint, parse_arguments, picture, train
from mmdet.structures import DetDataSample
from mmengine.runner import Runner
from torch import Tensor

from knet_plugin.core.mask_ops import resize

KNET = 'knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128'
METRICS = {'coco_panoptic/PQ': 'PQ', 'coco_panoptic/PQ_th': 'PQ of things', 'coco_panoptic/PQ_st': 'PQ of stuff',
           'coco/segm_mAP': 'mask AP', 'mIoU': 'mIoU'}
CLEAR = dict(ambiguity=0.0, hue=1.0, min_object=20.0)  # as `_base_/datasets/shapes-clear_panoptic.py` has it made
SHOWN_SCORE = 0.3
KERNELS_SHOWN = 2


def predict(runner: Runner, num_images: int) -> list[dict[str, Any]]:
    """The first test images, their results, and every stage's class and mask logits."""
    model = runner.model.eval()
    shown: list[dict[str, Any]] = []
    for batch in runner.build_dataloader(runner.cfg.test_dataloader):
        with torch.no_grad():
            data = model.data_preprocessor(batch)
            samples = model.predict(data['inputs'], data['data_samples'])
            proposals, updates = model.panoptic_head.stages(model.extract_feat(data['inputs']))
        for i, (image, sample) in enumerate(zip(batch['inputs'], samples, strict=True)):
            masks = [stage.mask_logits[i].cpu() for stage in (proposals, *updates)]
            shown.append(dict(image=image, sample=sample.cpu(), masks=masks, classes=updates[-1].class_logits[i].cpu()))
        if len(shown) >= num_images:
            break
    return shown[:num_images]


def ground_truth(sample: DetDataSample) -> Tensor:
    """Panoptic map of the annotations, (H, W), in the form of the predicted one."""
    panoptic = sample.gt_sem_seg.sem_seg[0].clone().long()
    for k, mask in enumerate(sample.gt_instances.masks.to_tensor(torch.bool, 'cpu')):
        panoptic[mask] += 1000 * (k + 1)
    return panoptic


def paint_segments(panoptic: Tensor, num_classes: int) -> np.ndarray:
    """Colours of the classes, white lines between segments, void black."""
    labels = panoptic % 1000
    colours = paint(labels.masked_fill(labels >= num_classes, 255))
    ids = panoptic.numpy()
    border = np.zeros(ids.shape, bool)
    border[1:] |= ids[1:] != ids[:-1]
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    colours[border] = 255
    return colours


def paint_instances(image: np.ndarray, sample: DetDataSample) -> np.ndarray:
    """Masks in the colours of their classes and boxes, over the grey image; the best on top."""
    canvas = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2) / 2
    instances = sample.pred_instances[sample.pred_instances.scores >= SHOWN_SCORE]
    order = range(len(instances) - 1, -1, -1)
    for k in order:
        mask, colour = instances.masks[k].numpy(), paint(instances.labels[k].view(1, 1))[0, 0]
        canvas[mask] = 0.25 * canvas[mask] + 0.75 * colour
    canvas = np.ascontiguousarray(canvas.astype(np.uint8))
    for k in order:
        x1, y1, x2, y2 = (int(side) for side in instances.bboxes[k])
        cv2.rectangle(canvas, (x1, y1), (max(x2 - 1, x1), max(y2 - 1, y1)), (255, 255, 255), 1)
    return canvas


def kernel_rows(result: dict[str, Any], num_things: int, num_kernels: int) -> list[list[np.ndarray]]:
    """For the best instance kernels, each of another object, the image and the mask before and after each update."""
    size = result['image'].shape[-2:]
    scores = result['classes'][:num_kernels, :num_things].sigmoid().amax(dim=1)
    chosen: list[int] = []
    for kernel in scores.argsort(descending=True).tolist():
        masks = result['masks'][-1][[kernel, *chosen]] > 0
        overlaps = (masks[0] & masks[1:]).sum(dim=(1, 2)) / (masks[0] | masks[1:]).sum(dim=(1, 2)).clamp(min=1)
        if masks[0].any() and not (overlaps > 0.5).any():
            chosen.append(kernel)
    rows = []
    for kernel in chosen[:KERNELS_SHOWN]:
        tiles = [picture(result['image'])]
        for logits in result['masks']:
            mask = resize(logits[None, kernel, None].sigmoid(), size)[0, 0].numpy()
            tiles.append(cv2.applyColorMap((255 * mask).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1])
        rows.append(tiles)
    return rows


def draw(results: list[dict[str, Any]], runner: Runner, folder: Path) -> list[Path]:
    """Write the pictures: what the model answers, and what its kernels do."""
    head = runner.model.panoptic_head
    answers, kernels = folder / 'results.png', folder / 'kernels.png'
    rows = []
    for result in results:
        image, sample = picture(result['image']), result['sample']
        rows.append([
            image, paint_segments(ground_truth(sample), head.num_classes),
            paint_segments(sample.pred_panoptic_seg.sem_seg[0], head.num_classes), paint_instances(image, sample),
            paint(sample.pred_sem_seg.sem_seg[0])
        ])
    draw_grid(['image', 'ground truth', 'panoptic', 'instances', 'semantic'], rows, answers)
    stages = [f'mask M{i}' for i in range(head.num_stages + 1)]
    draw_grid(['image', *stages], [row for result in results[:(len(results) + 1) // 2]
                                   for row in kernel_rows(result, head.num_things_classes,
                                                          head.kernel_head.num_kernels)], kernels)
    return [answers, kernels]


def main() -> None:
    """Make the data, train, test once, draw the pictures."""
    args = parse_arguments(str(__doc__).splitlines()[0], 'data/shapes_clear', 'work_dirs/demo', iterations=1000)
    warnings.filterwarnings('ignore', module='mmdet|mmengine|torch|panopticapi')  # of settings that are meant so
    make_data(args, **CLEAR)
    runner = train(KNET, args)
    measured = runner.test()
    table = {name: round(float(measured[key]) * (100 if key.startswith('coco/') else 1), 2)
             for key, name in METRICS.items()}
    print('\nOne pass over the test images, in percent')
    for name, value in table.items():
        print(f'  {name:<16}{value:6.2f}')
    (args.work_dir / 'results.json').write_text(json.dumps(table, indent=2) + '\n')
    paths = draw(predict(runner, args.rows), runner, args.work_dir)
    print('\nPictures: ' + ', '.join(map(str, paths)) + f'\nTable:    {args.work_dir / "results.json"}')


if __name__ == '__main__':
    main()
