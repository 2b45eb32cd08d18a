"""Train a small panoptic K-Net on synthetic images, evaluate it on all three tasks and draw its predictions.

After an interruption, the next call continues from the latest checkpoint.
"""

import warnings
from typing import Any

import cv2
import numpy as np
import torch
from demo_common import draw_grid, heat_map, kernel_outputs, paint, parse_arguments, show_table, to_rgb, train
from mmdet.structures import DetDataSample
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.functional import interpolate

from knet_plugin.datasets.shapes import make_shapes

KNET = 'knet-s3_r18-s_1xb8-adamw-1k_shapes-panoptic-128x128'
METRICS = {'coco_panoptic/PQ': 'PQ', 'coco_panoptic/PQ_th': 'PQ of things', 'coco_panoptic/PQ_st': 'PQ of stuff',
           'coco/segm_mAP': 'mask AP', 'mIoU': 'mIoU'}


@torch.no_grad()
def predict(runner: Runner) -> list[dict[str, Any]]:
    """Predictions for the first test batch; for each kernel also its score and its masks, see ``kernel_outputs``."""
    model = runner.model.eval()
    batch = next(iter(runner.build_dataloader(runner.cfg.test_dataloader)))
    data = model.data_preprocessor(batch)
    samples = model.predict(data['inputs'], data['data_samples'])
    masks, scores = kernel_outputs(model, data['inputs'])
    return [dict(image=image, sample=sample.cpu(), masks=masks[i], scores=scores[i])
            for i, (image, sample) in enumerate(zip(batch['inputs'], samples, strict=True))]


def ground_truth(sample: DetDataSample) -> Tensor:
    """Panoptic map of the annotations, (H, W): class + 1000 * instance."""
    panoptic = sample.gt_sem_seg.sem_seg[0].clone().long()
    for k, mask in enumerate(sample.gt_instances.masks.to_tensor(torch.bool, 'cpu'), start=1):
        panoptic[mask] += 1000 * k
    return panoptic


def paint_segments(panoptic: Tensor) -> np.ndarray:
    """Segments in the colours of their classes, with white borders; void is black."""
    colours = paint((panoptic % 1000).clamp(max=255))
    ids = panoptic.numpy()
    border = np.zeros(ids.shape, bool)
    border[1:] |= ids[1:] != ids[:-1]
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    colours[border] = 255
    return colours


def paint_instances(image: np.ndarray, sample: DetDataSample) -> np.ndarray:
    """Masks and boxes of the confident instances on the grey image, the best on top."""
    canvas = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2) / 2
    instances = sample.pred_instances[sample.pred_instances.scores >= 0.3]
    for mask, label in zip(instances.masks.numpy()[::-1], instances.labels.flip(0), strict=True):
        canvas[mask] = 0.25 * canvas[mask] + 0.75 * paint(label)
    canvas = np.ascontiguousarray(canvas.astype(np.uint8))
    for x1, y1, x2, y2 in instances.bboxes.int().tolist():
        cv2.rectangle(canvas, (x1, y1), (max(x2 - 1, x1), max(y2 - 1, y1)), (255, 255, 255))
    return canvas


def kernel_rows(result: dict[str, Any], count: int = 2) -> list[list[np.ndarray]]:
    """The image and the masks of the best kernels, one row per kernel, before and after each update."""
    size = result['image'].shape[-2:]
    rows = []
    for kernel in result['scores'].topk(count).indices:
        masks = interpolate(result['masks'][:, kernel, None], size, mode='bilinear')[:, 0]
        rows.append([to_rgb(result['image']), *map(heat_map, masks)])
    return rows


def main() -> None:
    """Make the data, train, test once and draw the pictures."""
    args = parse_arguments(__doc__, 'work_dirs/demo')
    warnings.filterwarnings('ignore')
    make_shapes('data/shapes_clear', args.num_train, args.num_val, ambiguity=0, hue=1, min_object=20)
    runner = train(KNET, args)
    measured = runner.test()
    show_table('Results on the test images', {
        name: round(float(measured[key]) * (100 if key.startswith('coco/') else 1), 2)
        for key, name in METRICS.items()}, args.work_dir)
    results = predict(runner)[:6]
    rows = []
    for result in results:
        image, sample = to_rgb(result['image']), result['sample']
        rows.append([image, paint_segments(ground_truth(sample)), paint_segments(sample.pred_panoptic_seg.sem_seg[0]),
                     paint_instances(image, sample), paint(sample.pred_sem_seg.sem_seg[0])])
    draw_grid(['image', 'ground truth', 'panoptic', 'instances', 'semantic'], rows, args.work_dir / 'results.png')
    titles = ['image', *(f'mask M{i}' for i in range(len(results[0]['masks'])))]
    draw_grid(titles, [row for result in results[:3] for row in kernel_rows(result)], args.work_dir / 'kernels.png')


if __name__ == '__main__':
    main()
