"""Where images and annotations are: the folders that users name, and the splits that these have already."""

from __future__ import annotations

from pathlib import Path

from knet_plugin.datasets.prepare.files import list_files
from knet_plugin.datasets.prepare.sample import Source
from knet_plugin.datasets.prepare.split import SPLIT_FOLDERS

__all__ = ['find_sources']

_ANNOTATIONS = ('labels', 'masks', 'annotations')


def find_sources(images: Path, annotations: Path | None) -> list[Source]:
    """Return one source, or one for 'train' and one for 'val' if the folders, or files, are divided so.

    Args:
        images: Folder of images; without ``annotations`` also of those, or of folders 'images' and 'labels', 'masks' or
            'annotations'.
        annotations: Folder or file.

    Raises:
        ValueError: A path does not exist, or holds no image.
    """
    for path in (images, annotations):
        if path is not None and not path.exists():
            raise ValueError(f'{path}: no such file or folder')
    if not images.is_dir():
        raise ValueError(f'{images}: must be the folder of the images')
    folders = _split_folders(images)
    if annotations is None:
        if folders:
            return [_resolve(folder, split) for split, folder in folders.items()]
        source = _resolve(images, None)
        if source.annotations != source.images:
            return find_sources(source.images, source.annotations)
        return [source]
    divided = _split_folders(annotations) if annotations.is_dir() else {}
    if annotations.is_dir() and not divided:
        divided = _split_files(annotations)
    if len(divided) == 2:
        return [Source(_only_folder(folders.get(split, images)), path, split) for split, path in divided.items()]
    return [Source(_only_folder(images), _only_file(annotations), None)]


def _resolve(folder: Path, split: str | None) -> Source:
    """Find images and annotations in one folder."""
    images = folder / 'images' if (folder / 'images').is_dir() else folder
    annotations = next((folder / name for name in _ANNOTATIONS if (folder / name).is_dir()), folder)
    return Source(_only_folder(images), _only_file(annotations), split)


def _split_folders(folder: Path) -> dict[str, Path]:
    """Return the folders of training and validation, if there are both."""
    found = [next((folder / name for name in names if (folder / name).is_dir()), None)
             for names in SPLIT_FOLDERS.values()]
    return {split: path for split, path in zip(SPLIT_FOLDERS, found, strict=True) if path} if all(found) else {}


def _split_files(folder: Path) -> dict[str, Path]:
    """Return the JSON files of training and validation, such as 'instances_train2017.json', if there is one of each."""
    files = sorted(folder.glob('*.json'))
    found = {split: [file for file in files if split in file.stem.lower()] for split in SPLIT_FOLDERS}
    return {split: paths[0] for split, paths in found.items()} if all(len(each) == 1 for each in found.values()) else {}


def _only_file(annotations: Path) -> Path:
    """Return the COCO file of a folder that has nothing else than it and images, or the folder."""
    files = list(annotations.glob('*.json')) if annotations.is_dir() else []
    if len(files) == 1 and len(list_files(annotations, ('.json',))) == 1:
        return files[0] if '"annotations"' in files[0].read_text(encoding='utf-8', errors='replace') else annotations
    return annotations


def _only_folder(folder: Path) -> Path:
    """Return the folder in which images are, if there are no others above it."""
    content = [path for path in folder.iterdir() if not path.name.startswith('.')]
    return _only_folder(content[0]) if len(content) == 1 and content[0].is_dir() else folder
