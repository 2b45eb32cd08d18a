"""Files that a command writes for results: pictures and videos, COCO files and label maps."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from knet_plugin.datasets.panoptic_png import measure_segments, segment_colours
from knet_plugin.inference.image_files import write_image
from knet_plugin.inference.inputs import Frame
from knet_plugin.visualization import VOID, Result, Segment

__all__ = ['PictureWriter', 'ResultWriter']


class PictureWriter:
    """Writes ``FOLDER/NAME.jpg``, and for videos ``FOLDER/NAME.mp4``.

    Attributes:
        written: The files, in the order of writing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._videos: dict[Path, cv2.VideoWriter] = {}
        self.written: list[Path] = []

    def add(self, frame: Frame, pictures: dict[str, np.ndarray]) -> None:
        """Write the pictures of a frame: RGB images by what follows the name, ``{'': ..., '_instances': ...}``."""
        suffix = '.mp4' if frame.source.is_video else '.jpg'
        targets = {self._folder / f'{frame.source.name}{end}{suffix}': picture for end, picture in pictures.items()}
        if not targets.keys() >= self._videos.keys():  # another video begins
            self.close()
        for path, picture in targets.items():
            if path not in self._videos:
                self.written.append(path)
            if not frame.source.is_video:
                write_image(path, picture[..., ::-1])
                continue
            if path not in self._videos:
                self._videos[path] = _open_video(path, frame.rate, picture)
            self._videos[path].write(np.ascontiguousarray(picture[..., ::-1]))

    def close(self) -> None:
        """Finish the videos."""
        for video in self._videos.values():
            video.release()
        self._videos.clear()


def _open_video(path: Path, rate: float, picture: np.ndarray) -> cv2.VideoWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), rate, picture.shape[1::-1])
    if not video.isOpened():
        raise OSError(f'cannot write {path}: this OpenCV has no MPEG-4 encoder')
    return video


class ResultWriter:
    """Writes the results of images that a ``with`` block adds: the files of ``knet predict --json``.

    Args:
        folder: Where.
        classes: Names; category ids are label + 1.
        num_things: The first classes are things, the rest is stuff.
        score_thr: Objects with a lower score are left out.
    """

    def __init__(self, folder: Path, classes: Sequence[str], num_things: int, score_thr: float = 0.) -> None:
        self._folder = folder
        self._classes = classes
        self._score_thr = score_thr
        self._categories = [dict(id=i + 1, name=name, isthing=int(i < num_things)) for i, name in enumerate(classes)]
        self._images: list[dict[str, Any]] = []
        self._annotations: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def __enter__(self) -> ResultWriter:
        return self

    def add(self, frame: Frame, result: Result) -> None:
        """Add an image; write its maps."""
        name, file_name = frame.source.name, frame.source.file_name
        if frame.number is not None:
            name, file_name = f'{name}/{frame.number:06d}', f'{file_name}/{frame.number:06d}.jpg'
        height, width = result.size
        image_id = len(self._images) + 1
        self._images.append(dict(id=image_id, file_name=file_name, height=height, width=width))
        if result.instances is not None:
            self._annotations['instances'] += self._objects(result, image_id)
        if result.panoptic is not None:
            write_image(self._folder / f'panoptic/{name}.png', segment_colours(result.panoptic))
            entry = dict(image_id=image_id, file_name=f'{name}.png',
                         segments_info=_segments(result.panoptic, result.segments))
            self._annotations['panoptic'].append(entry)
        if result.semantic is not None:
            labels = result.semantic.astype(np.uint8 if result.semantic.max(initial=0) <= VOID else np.uint16)
            write_image(self._folder / f'labels/{name}.png', labels)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Write the JSON files, also of what there is before an error."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / 'classes.txt').write_text(''.join(f'{name}\n' for name in self._classes), encoding='utf-8')
        for task, entries in self._annotations.items():
            things = [category for category in self._categories if category['isthing'] or task == 'panoptic']
            content = dict(images=self._images, annotations=entries, categories=things)
            (self._folder / f'{task}.json').write_text(json.dumps(content), encoding='utf-8')

    def _objects(self, result: Result, image_id: int) -> list[dict[str, Any]]:
        import pycocotools.mask as mask_utils

        objects = []
        first = len(self._annotations['instances']) + 1
        kept = [each for each in result.instances or [] if each.score is None or each.score >= self._score_thr]
        for number, each in enumerate(kept, start=first):
            x1, y1, x2, y2 = each.box
            counts = each.mask['counts']
            mask = dict(size=list(each.mask['size']), counts=counts.decode() if isinstance(counts, bytes) else counts)
            objects.append(dict(id=number, image_id=image_id, category_id=each.label + 1, iscrowd=0, score=each.score,
                                bbox=[x1, y1, x2 - x1, y2 - y1], area=int(mask_utils.area(each.mask)),
                                segmentation=mask))
        return objects


def _segments(ids: np.ndarray, segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """The ``segments_info`` of COCO's panoptic format; segments without pixels are left out."""
    measured = measure_segments(ids)
    return [dict(measured[each.id], category_id=each.label + 1, iscrowd=0,
                 **({} if each.score is None else {'score': each.score})) for each in segments if each.id in measured]
