"""What a command gets to segment: files, folders, patterns and videos, as a stream of frames."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from knet_plugin.inference.image_files import UnreadableError, count_frames, read_video

__all__ = ['IMAGES', 'VIDEOS', 'Frame', 'InputError', 'Source', 'find_sources', 'number_of_frames', 'read_frames']

IMAGES = ('.bmp', '.jfif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.webm')
_KINDS = ('', '_panoptic', '_instances', '_semantic')  # what follows a name in the files of its results


class InputError(ValueError):
    """An input does not exist, or a folder holds nothing to segment."""


@dataclass(frozen=True)
class Source:
    """An image or a video."""

    path: Path
    file_name: str  # path below the folder that was given
    name: str  # file_name without extension, for its results: no two sources have the same
    is_video: bool


@dataclass(frozen=True)
class Frame:
    """An image, or one frame of a video."""

    source: Source
    image: np.ndarray  # see ImageReader.read and ColourReader.read; frames of videos are (H, W, 3) uint8 RGB
    number: int | None = None  # of a video's frame, from 0
    rate: float = 0.  # frames per second


def find_sources(inputs: Sequence[str | Path], leave_out: Path | None = None) -> list[Source]:
    """Find all images and videos.

    A file that comes twice is taken once. Of two files with the same name, the second is called ``name_2``.

    Args:
        inputs: Files of any kind; folders, searched with their subfolders for ``IMAGES`` and ``VIDEOS``; or patterns
            such as ``'photos/*/day.png'``, with ``**`` for any subfolders.
        leave_out: A folder whose files are not searched, because results are written there.

    Raises:
        InputError: An input does not exist, or nothing is found.
    """
    found: dict[Path, Path] = {}  # by absolute path: the part of the path that gives the name
    for each in inputs:
        for path, root in _expand(Path(each).expanduser(), leave_out and leave_out.resolve()):
            found.setdefault(path.absolute(), path.relative_to(root))
    names: set[str] = set()
    files: set[str] = set()
    sources = []
    for path, relative in found.items():
        wanted = relative.with_suffix('').as_posix()
        name = next(name for name in (wanted, *(f'{wanted}_{i}' for i in range(2, len(found) + 2)))
                    if not names & {name + kind for kind in _KINDS})
        names |= {name + kind for kind in _KINDS}
        file = path.as_posix() if relative.as_posix() in files else relative.as_posix()
        files.add(file)
        sources.append(Source(path, file, name, path.suffix.lower() in VIDEOS))
    return sources


def _expand(path: Path, leave_out: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield files, each with the folder below which its name begins."""
    if path.is_file():
        yield path, path.parent
    elif path.is_dir():
        files = [file for file in sorted(path.rglob('*')) if file.suffix.lower() in IMAGES + VIDEOS and file.is_file()
                 and not any(part.startswith('.') for part in file.relative_to(path).parts)
                 and leave_out not in file.resolve().parents]
        if not files:
            raise InputError(f'folder {path} holds no image or video ({" ".join(IMAGES + VIDEOS)})')
        yield from ((file, path) for file in files)
    elif glob.has_magic(str(path)):
        files = sorted(Path(file) for file in glob.glob(str(path), recursive=True) if Path(file).is_file())
        if not files:
            raise InputError(f'no file matches {path}')
        fixed = path.parts[:next(i for i, part in enumerate(path.parts) if glob.has_magic(part))]
        yield from ((file, Path(*fixed)) for file in files)
    else:
        raise InputError(f'there is no file or folder {path}')


def number_of_frames(sources: Iterable[Source]) -> int:
    """Return the number of images and of the frames that the videos promise."""
    return sum(max(count_frames(source.path), 1) if source.is_video else 1 for source in sources)


class Reader(Protocol):
    """Reads an image file."""

    def read(self, path: Path) -> np.ndarray:
        """Return the image as ``Frame.image``, or raise an ``UnreadableError``."""


def read_frames(sources: Iterable[Source], reader: Reader, failed: list[str]) -> Iterator[Frame]:
    """Yield the images and the frames of the videos; an unreadable file adds a line to ``failed`` instead."""
    for source in sources:
        try:
            if source.is_video:
                for number, (image, rate) in enumerate(read_video(source.path)):
                    yield Frame(source, image, number, rate)
            else:
                yield Frame(source, reader.read(source.path))
        except UnreadableError as error:
            failed.append(str(error))
