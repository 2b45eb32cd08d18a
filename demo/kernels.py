"""Draw what the kernels of a trained detector do, as in the paper's Fig. 4.

Writes ``updates.png``, masks before and after each update. For learned kernels, ``average.png`` has the mean activation
of those with the highest scores over the test images.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from demo_common import draw_grid, heat_map, kernel_outputs, to_rgb
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.nn.functional import interpolate

from knet_plugin import Predictor
from knet_plugin.detection import CentreKernelHead

SIDE = 96  # of all pictures, in pixels


def square(maps: torch.Tensor) -> torch.Tensor:
    """Maps (n, h, w) as squares; the mean over images needs one size."""
    return interpolate(maps[None], (SIDE, SIDE), mode='bilinear')[0]


def main() -> None:
    """Predict the test images and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', help='work folder of a training, or a config')
    parser.add_argument('--checkpoint', help='weights (default: the best of the work folder)')
    parser.add_argument('--out', type=Path, required=True, help='folder for the pictures')
    parser.add_argument('--photos', type=int, default=4, help='rows of updates.png')
    parser.add_argument('--kernels', type=int, default=6, help='columns of average.png')
    args = parser.parse_args()
    predictor = Predictor(args.run, args.checkpoint)
    model = predictor.model
    init_default_scope(predictor.cfg.default_scope)
    loader = Runner.build_dataloader(dict(predictor.cfg.test_dataloader, num_workers=0, persistent_workers=False,
                                          batch_size=1))
    total, scores, rows = torch.zeros(()), torch.zeros(()), []
    for number, batch in enumerate(loader):
        data = model.data_preprocessor(batch)
        masks, of_image = kernel_outputs(model, data['inputs'])
        height, width = batch['data_samples'][0].img_shape[:2]  # without padding
        padded = data['inputs'].shape[2:]
        rows_used, columns_used = (round(side * valid / whole) for side, valid, whole in zip(
            masks.shape[3:], (height, width), padded, strict=True))
        masks = masks[0, ..., :rows_used, :columns_used]
        total = total + square(masks[-1, :of_image.shape[1]])
        scores = scores + of_image[0]
        if number < args.photos:
            photo = cv2.resize(np.ascontiguousarray(to_rgb(batch['inputs'][0])), (SIDE, SIDE))
            rows.append([photo, *map(heat_map, square(masks[:, of_image[0].argmax()]))])
    args.out.mkdir(parents=True, exist_ok=True)
    if not isinstance(model.panoptic_head.kernel_head, CentreKernelHead):  # whose kernels differ from image to image
        best = scores.topk(min(args.kernels, len(scores))).indices
        draw_grid([f'kernel {k}' for k in best], [[heat_map(mean / mean.max()) for mean in total[best]]],
                  args.out / 'average.png')
    draw_grid(['photo', *(f'M{i}' for i in range(len(rows[0]) - 1))], rows, args.out / 'updates.png')


if __name__ == '__main__':
    main()
