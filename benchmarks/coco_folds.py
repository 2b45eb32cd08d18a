"""Split annotated COCO images into folds of own data whose classes are COCO's supercategories.

    python benchmarks/coco_folds.py ../shared/real_samples/coco_train100 data/coco100

writes ``data/coco100-0`` to ``data/coco100-3``. Each has another quarter of the images for validation. A hundred images
are too few for 133 classes: half of the 80 things have at most four objects in them.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from knet_plugin.datasets.panoptic_png import measure_segments, read_segment_ids, segment_colours

FOLDS = 4


def supercategories(categories: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """Return the supercategories, things first, and the id of each by the id of a category."""
    kinds = sorted({(1 - each['isthing'], each['supercategory']) for each in categories})
    merged = [dict(id=number, name=name, isthing=1 - stuff) for number, (stuff, name) in enumerate(kinds, start=1)]
    number_of = {kind: number for number, kind in enumerate(kinds, start=1)}
    return merged, {each['id']: number_of[1 - each['isthing'], each['supercategory']] for each in categories}


def merged_annotation(annotation: dict[str, Any], png: Path, number_of: dict[int, int], stuff: set[int],
                      out: Path) -> dict[str, Any]:
    """Write the PNG of an image with one segment for each stuff class, and return its annotation."""
    ids = read_segment_ids(str(png))
    merged, segments = np.zeros_like(ids), {}
    for number, segment in enumerate(annotation['segments_info'], start=1):
        category = number_of[segment['category_id']]
        new = 1000 + category if category in stuff else number
        merged[ids == segment['id']] = new
        segments[new] = dict(id=new, category_id=category, iscrowd=segment['iscrowd'])
    cv2.imwrite(str(out / png.name), segment_colours(merged))
    measured = measure_segments(merged)
    return {**annotation, 'segments_info': [{**segment, **measured[new]} for new, segment in segments.items()]}


def main() -> None:
    """Write the folds."""
    parser = argparse.ArgumentParser(description='Folds of annotated COCO images, with supercategories as classes')
    parser.add_argument('source', type=Path, help='folder with images/ and annotations/panoptic.json')
    parser.add_argument('out', help='start of the names of the folders')
    args = parser.parse_args()
    annotations = args.source / 'annotations'
    content = json.loads((annotations / 'panoptic.json').read_text())
    categories, number_of = supercategories(content['categories'])
    stuff = {each['id'] for each in categories if not each['isthing']}
    image_of = {image['id']: image for image in content['images']}
    for fold in range(FOLDS):
        with tempfile.TemporaryDirectory() as folder:
            split: dict[str, list[dict[str, Any]]] = dict(train=[], val=[])
            for name in split:
                Path(folder, name).mkdir()
                Path(folder, f'images_{name}').mkdir()
            for place, annotation in enumerate(sorted(content['annotations'], key=lambda each: each['image_id'])):
                name = 'val' if place % FOLDS == fold else 'train'
                png = annotations / 'panoptic' / annotation['file_name']
                split[name].append(merged_annotation(annotation, png, number_of, stuff, Path(folder, name)))
                image = image_of[annotation['image_id']]['file_name']
                shutil.copy(args.source / 'images' / image, Path(folder, f'images_{name}'))
            for name, kept in split.items():
                images = [image_of[annotation['image_id']] for annotation in kept]
                Path(folder, f'{name}.json').write_text(json.dumps(
                    dict(images=images, annotations=kept, categories=categories)))
            subprocess.run([sys.executable, '-m', 'knet_plugin', 'data', 'prepare', f'{folder}/images_train',
                            f'{folder}/train.json', '--val-images', f'{folder}/images_val', '--val-annotations',
                            f'{folder}/val.json', '-o', f'{args.out}-{fold}'], check=True)


if __name__ == '__main__':
    main()
