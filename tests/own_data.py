"""Tiny annotated images, written in every format that ``knet data prepare`` reads, and read back."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

CLASSES = ('cat', 'dog')
STUFF = 'floor'


@dataclass
class Picture:
    """An image and its objects, polygons with whole coordinates: (class, [x, y, x, y, ...])."""

    name: str
    size: tuple[int, int]
    objects: list[tuple[str, list[int]]]

    @property
    def stem(self) -> str:
        return str(Path(self.name).with_suffix(''))

    def masks(self) -> list[tuple[str, np.ndarray]]:
        return [(name, mask_utils.decode(mask_utils.frPyObjects([polygon], *self.size))[..., 0].astype(bool))
                for name, polygon in self.objects]

    def ids(self, classes=CLASSES) -> np.ndarray:
        """(H, W) map: 1..n for the objects of these classes."""
        ids = np.zeros(self.size, np.uint8)
        for number, (_, mask) in enumerate([each for each in self.masks() if each[0] in classes], start=1):
            ids[mask] = number
        return ids

    def labels(self) -> np.ndarray:
        """(H, W) map of class indices; floor is the last."""
        labels = np.full(self.size, len(CLASSES), np.uint8)
        for name, mask in self.masks():
            labels[mask] = CLASSES.index(name)
        return labels


def make_pictures(number: int = 5, seed: int = 0) -> list[Picture]:
    """Images of different sizes, every other one in a folder; each has a rectangle and an L of each class."""
    rng = np.random.default_rng(seed)
    pictures = []
    for i in range(number):
        height, width = 40 + 4 * i, 60
        objects = []
        for slot, name in enumerate([*CLASSES, *CLASSES]):
            x, y = 2 + 15 * slot, int(rng.integers(1, 8))
            right, bottom = x + 10, y + int(rng.integers(12, 24))
            outline = [x, y, right, y, right, bottom, x, bottom] if slot < 2 else [
                x, y, x + 4, y, x + 4, bottom - 4, right, bottom - 4, right, bottom, x, bottom]
            objects.append((name, outline))
        pictures.append(Picture(f'{"a/" if i % 2 else ""}photo{i}.jpg', (height, width), objects))
    return pictures


def write_images(root: Path, pictures: list[Picture]) -> Path:
    for picture in pictures:
        noise = np.random.default_rng(len(picture.name)).integers(0, 255, (*picture.size, 3), dtype=np.uint8)
        path = root / picture.name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), noise)
    return root


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_class_folders(root: Path, pictures: list[Picture]) -> Path:
    for picture in pictures:
        for name in CLASSES:
            write_png(root / name / f'{picture.stem}_mask.png', picture.ids([name]))
    return root


def write_object_masks(root: Path, pictures: list[Picture]) -> Path:
    for picture in pictures:
        for number, (name, mask) in enumerate(picture.masks()):
            write_png(root / name / f'{picture.stem}_{number}.png', mask.astype(np.uint8) * 255)
    return root


def write_binary_masks(root: Path, pictures: list[Picture]) -> Path:
    for picture in pictures:
        for name in CLASSES:
            write_png(root / name / f'{picture.stem}.png', (picture.ids([name]) > 0).astype(np.uint8) * 255)
    return root


def write_label_maps(root: Path, pictures: list[Picture]) -> Path:
    for picture in pictures:
        write_png(root / f'{picture.stem}.png', picture.labels())
    return root


def write_coco(file: Path, pictures: list[Picture]) -> Path:
    """Category ids with gaps; polygons, and compressed and plain RLE."""
    categories = [dict(id=7, name='cat', supercategory='pets'), dict(id=3, name='dog', supercategory='pets')]
    ids = {each['name']: each['id'] for each in categories}
    images, annotations = [], []
    for i, picture in enumerate(pictures):
        images.append(dict(id=i + 10, file_name=picture.name, height=picture.size[0], width=picture.size[1]))
        for k, ((name, polygon), (_, mask)) in enumerate(zip(picture.objects, picture.masks(), strict=True)):
            rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
            runs = np.flatnonzero(np.diff(mask.ravel('F').astype(int), prepend=0, append=0))
            counts = np.diff(runs, prepend=0, append=mask.size).tolist()
            segmentation = ([polygon], dict(rle, counts=rle['counts'].decode()), dict(rle, counts=counts))[k % 3]
            annotations.append(dict(id=len(annotations) + 1, image_id=i + 10, category_id=ids[name],
                                    segmentation=segmentation, iscrowd=int(k % 3 > 0 and i == 0)))
    file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return file


def write_panoptic(file: Path, pictures: list[Picture]) -> Path:
    """Stuff first among the categories, large ids, PNGs in subfolders."""
    categories = [dict(id=5, name=STUFF, isthing=0), dict(id=9, name='cat', isthing=1),
                  dict(id=2, name='dog', isthing=1)]
    ids = {each['name']: each['id'] for each in categories}
    images, annotations = [], []
    for i, picture in enumerate(pictures):
        images.append(dict(id=f'image{i}', file_name=picture.name, height=picture.size[0], width=picture.size[1]))
        values = np.where(picture.ids() > 0, picture.ids().astype(int) * 1000, 70_000)
        values[0] = 0  # void
        colours = np.stack([values & 255, values >> 8 & 255, values >> 16], axis=-1).astype(np.uint8)
        write_png(file.with_suffix('') / f'{picture.stem}_panoptic.png', colours)
        segments = [dict(id=1000 * (k + 1), category_id=ids[name]) for k, (name, _) in enumerate(picture.objects)]
        annotations.append(dict(image_id=f'image{i}', file_name=f'{picture.stem}_panoptic.png',
                                segments_info=[*segments, dict(id=70_000, category_id=ids[STUFF])]))
    file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return file


def outline(mask: np.ndarray) -> np.ndarray:
    """(N, 2) pixels of the outline, as people make polygons of masks."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return contours[0][:, 0]


def write_yolo(root: Path, pictures: list[Picture]) -> Path:
    for picture in pictures:
        lines = []
        for name, mask in picture.masks():
            shares = outline(mask) / picture.size[::-1]
            lines.append(' '.join([str(CLASSES.index(name)), *(f'{value:.6f}' for value in shares.ravel())]))
        path = root / f'{picture.stem}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('\n'.join(lines) + '\n')
    (root.parent / 'data.yaml').write_text('train: images\nnc: 2\nnames: {0: cat, 1: dog}\n')
    return root


def write_labelme(root: Path, pictures: list[Picture]) -> Path:
    """The first object is a rectangle, the third a mask, the others are polygons; the fourth has two parts."""
    for picture in pictures:
        shapes: list[dict] = []
        for k, (name, mask) in enumerate(picture.masks()):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            corners = [[int(columns[-1]), int(rows[0])], [int(columns[0]), int(rows[-1])]]
            shape = dict(label=name, points=outline(mask).tolist(), shape_type='polygon', group_id=None)
            if k == 0:
                shape.update(shape_type='rectangle', points=corners)
            elif k == 2:
                part = io.BytesIO()
                Image.fromarray(mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]).save(part, 'PNG')
                corners = [[int(columns[0]), int(rows[0])], [int(columns[-1]), int(rows[-1])]]
                shape.update(shape_type='mask', points=corners, mask=base64.b64encode(part.getvalue()).decode())
            elif k == 3:
                upper, lower = mask.copy(), mask.copy()
                upper[rows[-1]:] = lower[:rows[-1] - 1] = False
                shape.update(group_id=1, points=outline(upper).tolist())
                shapes.append(dict(shape, points=outline(lower).tolist()))
            shapes.append(shape)
        path = root / f'{picture.stem}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(shapes=shapes, imagePath=f'..\\{picture.name}', imageHeight=picture.size[0],
                                        imageWidth=picture.size[1], imageData=None)))
    return root


def read_instances(root: Path, split: str) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Class and mask of each object, by the name of the image."""
    data = json.loads((root / f'annotations/instances_{split}.json').read_text())
    classes = {each['id']: each['name'] for each in data['categories']}
    names = {each['id']: each['file_name'] for each in data['images']}
    found: dict[str, list[tuple[str, np.ndarray]]] = {name: [] for name in names.values()}
    for each in data['annotations']:
        mask = mask_utils.decode(each['segmentation']).astype(bool)
        found[names[each['image_id']]].append((classes[each['category_id']], mask))
    return found


def read_panoptic(root: Path, split: str) -> dict[str, tuple[np.ndarray, list[dict]]]:
    """Map of segment ids and ``segments_info``, with the name of the class, by the name of the image."""
    data = json.loads((root / f'annotations/panoptic_{split}.json').read_text())
    classes = {each['id']: each['name'] for each in data['categories']}
    names = {each['id']: each['file_name'] for each in data['images']}
    found = {}
    for each in data['annotations']:
        pixels = np.asarray(Image.open(root / f'annotations/panoptic_{split}' / each['file_name'])).astype(int)
        infos = [dict(info, name=classes[info['category_id']]) for info in each['segments_info']]
        found[names[each['image_id']]] = pixels @ [1, 256, 65536], infos
    return found


def read_labels(root: Path, split: str, name: str) -> np.ndarray:
    return np.asarray(Image.open(root / 'labels' / split / Path(name).with_suffix('.png')))


def as_set(objects: list[tuple[str, np.ndarray]]) -> set[tuple[str, bytes]]:
    return {(name, mask.tobytes()) for name, mask in objects}
