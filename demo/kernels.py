"""Draw what the kernels of a trained detector do, as in the paper's Fig. 4.

Writes ``updates.png``, masks before and after each update. For learned kernels, ``average.png`` has the mean activation
over the test images of those with the highest scores in the photos of ``updates.png``.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from demo_common import draw_grid, heat_map

from knet_plugin import Predictor
from knet_plugin.inference.kernel_trace import average_masks, trace_kernels
from knet_plugin.inference.run_folder import images_of_run

SIDE = 96  # of all pictures, in pixels


def square(picture: np.ndarray) -> np.ndarray:
    """A picture (H, W) or (H, W, 3) as a square."""
    return cv2.resize(picture, (SIDE, SIDE))


def heat(values: np.ndarray) -> np.ndarray:
    """Values (h, w) from 0 to 1 as a square of colours."""
    return heat_map(torch.from_numpy(square(values)))


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
    head = predictor.model.panoptic_head
    images = images_of_run(predictor.cfg, 'test_dataloader', 10 ** 6)
    traces = [trace_kernels(predictor, image) for image in images[:args.photos]]
    scores = np.mean([trace.scores[-1] for trace in traces], axis=0)[:head.kernel_head.num_kernels]
    args.out.mkdir(parents=True, exist_ok=True)
    if not traces[0].from_image:
        best = np.argsort(-scores)[:args.kernels]
        means = average_masks(predictor, images, SIDE)[best]
        draw_grid([f'kernel {k}' for k in best], [[heat(mean / mean.max()) for mean in means]],
                  args.out / 'average.png')
    rows = []
    for image, trace in zip(images, traces, strict=False):
        strongest = trace.scores[-1, :head.kernel_head.num_kernels].argmax()  # not of stuff
        rows.append([square(predictor.reader.picture(image)), *(heat(stage[strongest]) for stage in trace.masks)])
    draw_grid(['photo', *(f'M{i}' for i in range(len(rows[0]) - 1))], rows, args.out / 'updates.png')


if __name__ == '__main__':
    main()
