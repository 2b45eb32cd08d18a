"""Animate how the stages of a trained detector refine its kernels on an image: docs/refinement.gif."""

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from knet_plugin import Predictor
from knet_plugin.inference.kernel_trace import KernelTrace, trace_kernels
from knet_plugin.visualization.text import write

STEPS, PAUSE = 8, 2650  # pictures between two stages, and milliseconds that a stage is shown


def frame(photo: np.ndarray, masks: np.ndarray, scores: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Photo (H, W, 3) with masks (N, h, w), as opaque as their scores (N,); certain ones on top."""
    picture = photo.astype(np.float32)
    for kernel in np.argsort(scores):
        large = cv2.resize(masks[kernel], photo.shape[1::-1])[..., None] > 0.5
        picture = np.where(large, picture + 0.75 * scores[kernel] * (colours[kernel] - picture), picture)
    return picture.astype(np.uint8)


def pictures(photo: np.ndarray, trace: KernelTrace) -> list[tuple[np.ndarray, int]]:
    """Frames with their milliseconds: the photo, then M_0 to M_S."""
    hues = np.random.default_rng(0).permutation(trace.masks.shape[1])
    colours = cv2.cvtColor(np.stack([hues * 180 // len(hues), 0 * hues + 190, 0 * hues + 255], axis=-1)[None].astype(
        np.uint8), cv2.COLOR_HSV2RGB)[0].astype(np.float32)
    scores = np.concatenate([np.full_like(trace.scores[:1], 0.5), trace.scores])  # M_0 has none
    frames = [(titled(photo, 'photo'), PAUSE)]
    for stage, masks in enumerate(trace.masks):
        for step in range(1, STEPS + 1) if stage else [STEPS]:
            share = step / STEPS
            before = max(stage - 1, 0)
            picture = frame(photo, (1 - share) * trace.masks[before] + share * masks,
                            (1 - share) * scores[before] + share * scores[stage], colours)
            title = f'M{stage}: {len(hues)} kernels' if stage == 0 else f'M{stage}, as opaque as their scores'
            frames.append((titled(picture, title), PAUSE if step == STEPS else 80))
    return frames


def titled(picture: np.ndarray, text: str) -> np.ndarray:
    """A copy with a line of text above."""
    canvas = np.full((picture.shape[0] + 26, picture.shape[1], 3), 255, np.uint8)
    canvas[26:] = picture
    write(canvas, text, (4, 2), 15, (255, 255, 255))
    return canvas


def main() -> None:
    """Write the animation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', help='work folder of a training')
    parser.add_argument('image', help='an image')
    parser.add_argument('--out', type=Path, required=True, help='a .gif file')
    args = parser.parse_args()
    predictor = Predictor(args.run)
    photo = predictor.reader.picture(args.image)
    frames = pictures(photo, trace_kernels(predictor, photo))
    images = [Image.fromarray(picture).quantize(96) for picture, _ in frames]
    images[0].save(args.out, save_all=True, append_images=images[1:], duration=[time for _, time in frames], loop=0)


if __name__ == '__main__':
    main()
