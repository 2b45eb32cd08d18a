"""Train a small FCN with and without K-Net on synthetic images, compare them and draw the result of every stage.

After an interruption, the next call continues from the latest checkpoint.
"""

import warnings

import torch
from demo_common import draw_grid, paint, parse_arguments, show_table, to_rgb, train
from mmengine.runner import Runner
from mmseg.evaluation import IoUMetric
from torch.nn.functional import interpolate

from knet_plugin.datasets.shapes import make_shapes
from knet_plugin.semantic import IterativeDecodeHead

FCN = 'fcn_r18-s_1xb8-adamw-1k_shapes-128x128'
KNET = 'knet-s3_r18-s_fcn_1xb8-adamw-1k_shapes-128x128'


@torch.no_grad()
def evaluate_stages(runner: Runner) -> tuple[list[float], list[dict]]:
    """Evaluate every stage; a plain head has one.

    Returns:
        The mIoU of each stage in percent; image, labels and the class map of each stage for every test image.
    """
    model = runner.model.eval()
    loader = runner.build_dataloader(runner.cfg.test_dataloader)
    results: list[dict] = []
    for batch in loader:
        data = model.data_preprocessor(batch)
        head, features, size = model.decode_head, model.extract_feat(data['inputs']), data['inputs'].shape[-2:]
        logits = head.stage_logits(features) if isinstance(head, IterativeDecodeHead) else [head(features)]
        stages = torch.stack([interpolate(each, size, mode='bilinear').argmax(dim=1) for each in logits], dim=1).cpu()
        results += [dict(image=image, labels=sample.gt_sem_seg.data[0].cpu(), stages=stages[i])
                    for i, (image, sample) in enumerate(zip(batch['inputs'], data['data_samples'], strict=True))]
    scores = []
    for i in range(len(results[0]['stages'])):
        metric = IoUMetric()
        metric.dataset_meta = loader.dataset.metainfo
        metric.process({}, [dict(pred_sem_seg=dict(data=result['stages'][i]), gt_sem_seg=dict(data=result['labels']))
                            for result in results])
        scores.append(float(metric.evaluate(len(results))['mIoU']))
    return scores, results


def main() -> None:
    """Make the data, train both models, print the table and draw the picture."""
    args = parse_arguments(__doc__, 'work_dirs/demo_semantic')
    warnings.filterwarnings('ignore')
    make_shapes('data/shapes', args.num_train, args.num_val)
    (fcn_score, ), fcn = evaluate_stages(train(FCN, args))
    scores, knet = evaluate_stages(train(KNET, args))
    show_table('mIoU on the test images', {'FCN': fcn_score} | {
        f'K-Net, M{i}': score for i, score in enumerate(scores)}, args.work_dir)
    rows = [[to_rgb(ours['image']), *map(paint, (ours['labels'], plain['stages'][-1], *ours['stages']))]
            for plain, ours in zip(fcn[:6], knet, strict=False)]
    draw_grid(['image', 'ground truth', 'FCN', *(f'K-Net M{i}' for i in range(len(scores)))], rows,
              args.work_dir / 'panel.png')


if __name__ == '__main__':
    main()
