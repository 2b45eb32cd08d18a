"""The models and pictures of a page: models are opened when they are first used, pictures stay in memory only."""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from knet_plugin import runtime
from knet_plugin.inference.image_files import ColourReader, UnreadableError
from knet_plugin.inference.opening import open_predictor
from knet_plugin.inference.run_folder import find_weights
from knet_plugin.visualization import Result

__all__ = ['Gallery', 'Picture', 'find_models']

KEPT = 12  # pictures, with their results; older ones are dropped
KEPT_PIXELS = 100_000_000  # of them together
MOST_PIXELS = 50_000_000
FORMATS = ('PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF', 'GIF')  # Pillow starts other programs for some of the rest


def find_models(names: Sequence[str]) -> dict[str, str]:
    """Models by the name that the page shows. A folder of work folders stands for all of them that hold a checkpoint.

    Raises:
        OPENING_ERRORS: A model does not exist.
    """
    found: dict[str, str] = {}
    for name in names:
        path = Path(name).expanduser()
        inside = sorted({file.parent for file in path.glob('*/*.pth')}) if path.is_dir() else []
        folders = inside if inside and not any(path.glob('*.pth')) else [path]
        for each in map(str, folders):
            if Path(each).suffix in runtime.ENGINE_SUFFIXES:
                if not Path(each).is_file():
                    raise runtime.EngineError(f'there is no file {each}')
            else:
                find_weights(each)
            short = Path(each).resolve().name
            found[each if found.get(short, each) != each else short] = each
    return found


@dataclass
class Picture:
    """An uploaded picture (H, W, 3) uint8 RGB, and the results of the models by name."""

    name: str
    image: np.ndarray
    results: dict[str, Result] = field(default_factory=dict)


class Gallery:
    """Models and pictures, for several threads; one model runs at a time.

    Args:
        models: Paths by name, see ``find_models``.
        device: See ``Predictor``.
    """

    def __init__(self, models: dict[str, str], device: str | None = None) -> None:
        self.models = models
        self.lock = threading.RLock()  # of whatever opens or runs a model
        self._pictures_lock = threading.Lock()
        self._device = device
        self._opened: dict[str, Any] = {}
        self._pictures: OrderedDict[int, Picture] = OrderedDict()
        self._numbers = itertools.count(1)

    def predictor(self, model: str) -> Any:
        """The predictor of a model, opened by the first call.

        Raises:
            ValueError: There is no such model.
            OPENING_ERRORS: It cannot be opened.
        """
        if model not in self.models:
            raise ValueError(f'there is no model {model}')
        if model in self._opened:  # without waiting for a model that runs
            return self._opened[model]
        with self.lock:
            if model not in self._opened:
                self._opened[model] = open_predictor(self.models[model], device=self._device)
            return self._opened[model]

    def add(self, name: str, content: bytes, replaces: int | None = None) -> int:
        """Decode an uploaded file, and return the number of the picture; ``replaces`` is that of one to drop.

        Raises:
            UnreadableError: It is no image, or a very large one.
        """
        too_large = UnreadableError(f'{name}: the page takes at most {MOST_PIXELS:,} pixels')
        try:
            opened = Image.open(io.BytesIO(content), formats=FORMATS)
            if opened.width * opened.height > MOST_PIXELS:  # known before the pixels are decoded
                raise too_large
            image = np.ascontiguousarray(ColourReader().picture(opened))
        except Image.DecompressionBombError as error:
            raise too_large from error
        except UnreadableError:
            raise
        except Exception as error:  # Pillow has many kinds
            raise UnreadableError(f'{name}: the file is empty or cannot be decoded as an image '
                                  f'({", ".join(FORMATS)})') from error
        number = next(self._numbers)
        with self._pictures_lock:
            self._pictures.pop(replaces or 0, None)
            self._pictures[number] = Picture(name, image)
            while len(self._pictures) > 1 and (len(self._pictures) > KEPT or self._pixels() > KEPT_PIXELS):
                self._pictures.popitem(last=False)
        return number

    def _pixels(self) -> int:
        return sum(picture.image[..., 0].size for picture in self._pictures.values())

    def picture(self, number: int) -> Picture:
        """A picture by its number.

        Raises:
            ValueError: It was dropped, or never existed.
        """
        picture = self._pictures.get(number)
        if picture is None:
            raise ValueError(f'the page keeps at most {KEPT} pictures: add this one again')
        return picture

    def run(self, number: int, model: str) -> tuple[Result, float]:
        """The result of a picture, and the seconds that the model took; 0 if it is known already."""
        picture = self.picture(number)
        with self.lock:
            predictor = self.predictor(model)
            start = time.perf_counter()
            if model in picture.results:
                return picture.results[model], 0.
            picture.results[model], = predictor(picture.image)
            return picture.results[model], time.perf_counter() - start
