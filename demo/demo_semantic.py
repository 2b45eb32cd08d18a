"""Train a small FCN without and with K-Net on made-up images, compare the two, and draw what every stage does.

Everything comes from two stock-style configs of this package; the same is done by hand with ``tools/make_shapes.py``,
``tools/train.py`` and ``tools/test.py``. Run again after an interruption, it goes on where it was.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from demo_common import draw_grid, make_data, paint, parse_arguments, picture, train
from mmengine.runner import Runner
from mmseg.evaluation import IoUMetric
from torch import Tensor

from knet_plugin.datasets.shapes import CLASSES
from knet_plugin.semantic import IterativeDecodeHead

BASELINE = 'fcn_r18-s_1xb8-adamw-1k_shapes-128x128'
KNET = 'knet-s3_r18-s_fcn_1xb8-adamw-1k_shapes-128x128'
IGNORE = 255


def stage_results(runner: Runner) -> list[list[dict]]:
    """For each test image its picture, labels, and class map of every stage, all H x W; a list for each batch.

    A plain head has one stage.
    """
    model = runner.model.eval()
    batches = []
    with torch.no_grad():
        for batch in runner.build_dataloader(runner.cfg.test_dataloader):
            data = model.data_preprocessor(batch)
            features = model.extract_feat(data['inputs'])
            head = model.decode_head
            stages = head.stage_logits(features) if isinstance(head, IterativeDecodeHead) else [head(features)]
            size = data['inputs'].shape[-2:]
            maps = [torch.nn.functional.interpolate(logits, size, mode='bilinear').argmax(1) for logits in stages]
            batches.append([
                dict(image=image, labels=sample.gt_sem_seg.data[0], stages=[stage[i] for stage in maps])
                for i, (image, sample) in enumerate(zip(batch['inputs'], data['data_samples'], strict=True))
            ])
    return batches


def mean_iou(predictions: list[Tensor], labels: list[Tensor]) -> float:
    """Mean IoU in percent, as mmseg's ``IoUMetric`` has it."""
    areas = [IoUMetric.intersect_and_union(prediction, label, len(CLASSES), IGNORE)
             for prediction, label in zip(predictions, labels, strict=True)]
    metrics = IoUMetric.total_area_to_metrics(*(sum(area) for area in zip(*areas, strict=True)), ['mIoU'])
    return 100 * float(np.nanmean(metrics['IoU']))


def draw_panel(baseline: list[dict], knet: list[dict], path: Path) -> None:
    """One row an image: image, ground truth, baseline, and K-Net after each stage."""
    titles = ['image', 'ground truth', 'FCN', *(f'K-Net M{i}' for i in range(len(knet[0]['stages'])))]
    rows = [[picture(ours['image']), *(paint(labels) for labels in (ours['labels'], plain['stages'][-1],
                                                                    *ours['stages']))]
            for plain, ours in zip(baseline, knet, strict=True)]
    draw_grid(titles, rows, path)


def main() -> None:
    """Make the data, train both models, print the table, draw the picture."""
    args = parse_arguments(str(__doc__).splitlines()[0], 'data/shapes', 'work_dirs/demo_semantic', iterations=1000)
    warnings.filterwarnings('ignore', module='mmseg|mmengine|torch')  # of settings that are meant so
    make_data(args)

    table: dict[str, float] = {}
    first_batches = []
    for name in (BASELINE, KNET):
        runner = train(name, args)
        measured = float(runner.test()['mIoU'])
        batches = stage_results(runner)
        results = [result for batch in batches for result in batch]
        labels = [result['labels'] for result in results]
        scores = [mean_iou([result['stages'][i] for result in results], labels)
                  for i in range(len(results[0]['stages']))]
        first_batches.append(batches[0][:args.rows])
        if name == BASELINE:
            table['FCN'] = measured
        else:
            table.update({f'FCN + K-Net, M{i}': score for i, score in enumerate(scores[:-1])})
            table[f'FCN + K-Net, M{len(scores) - 1} (its result)'] = measured

    print('\nmIoU on the test images, in percent')
    for row, value in table.items():
        print(f'  {row:<28}{value:6.2f}')
    (args.work_dir / 'results.json').write_text(json.dumps(table, indent=2) + '\n')
    draw_panel(*first_batches, args.work_dir / 'panel.png')
    print(f'\nPicture: {args.work_dir / "panel.png"}\nTable:   {args.work_dir / "results.json"}')


if __name__ == '__main__':
    main()
