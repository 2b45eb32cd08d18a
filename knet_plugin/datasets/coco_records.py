"""The records of a COCO file: lists of objects whose ids and sizes are numbers, and whose ids are unique."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from mmengine.fileio import get

__all__ = ['load']

_FIELDS = dict(images=('id', 'file_name', 'height', 'width'), categories=('id', 'name'), annotations=())
_NUMBERS = {'id', 'image_id', 'category_id', 'height', 'width'}  # ids may be other texts, too
_SizeOf = Callable[[str], tuple[int, int] | None]


def load(path: str, backend_args: dict | None = None, size_of: _SizeOf | None = None) -> tuple[dict, list[str]]:
    """Read the file and check that it has the lists of a COCO file; see ``read_coco``.

    Returns:
        Its content, in which annotations may have no ``image_id``, and lines for the user.
    """
    try:
        data = json.loads(get(path, backend_args=backend_args))
    except ValueError as error:  # also of an encoding
        raise ValueError(f'{path} is not a COCO annotation file: no JSON ({error})') from error
    if not isinstance(data, dict):
        raise ValueError(f'{path} is not a COCO annotation file: a JSON {type(data).__name__}, no object')
    data['annotations'] = data.get('annotations') or []  # a test set has none
    notes: list[str] = []
    for field, keys in _FIELDS.items():
        records = data.get(field)
        if not isinstance(records, list):
            raise ValueError(f'{path} is not a COCO annotation file: it has no list "{field}"')
        if all(isinstance(record, dict) for record in records):
            _use_numbers(records)
            if field == 'images' and size_of:
                records = data[field] = _fill_sizes(records, size_of, notes)
        for i, record in enumerate(records):
            missing = [key for key in keys if not isinstance(record, dict) or record.get(key) is None]
            if missing or not isinstance(record, dict):
                raise ValueError(f'{path}: {field}[{i}] has no "{(*missing, "image_id")[0]}": {str(record)[:100]}')
        if field != 'annotations':
            data[field] = _merge(records, field, path, notes)
    if data['annotations'] and all(record.get('image_id') is None for record in data['annotations']):
        raise ValueError(f'{path}: annotations have no "image_id": {str(data["annotations"][0])[:100]}')
    return data, notes


def _use_numbers(records: list[dict[str, Any]]) -> None:
    """Replace texts of whole numbers by the numbers, also in the segments of panoptic annotations."""
    for record in records:
        for key in _NUMBERS & record.keys():
            record[key] = _number(record[key])
            if key in ('height', 'width') and not (isinstance(record[key], int) and record[key] > 0):
                record[key] = None
        segments = record.get('segments_info')
        if isinstance(segments, list):
            _use_numbers(segments)


def _number(value: Any) -> Any:
    """Return the whole number that a text or float is; another value as it is, but None if it cannot be an id."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and str(int(value)) == value:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None if isinstance(value, list | dict) else value


def _fill_sizes(images: list[dict[str, Any]], size_of: _SizeOf, notes: list[str]) -> list[dict[str, Any]]:
    """Return the images, with ``height`` and ``width`` of their files if they have none; drop those without file."""
    kept = []
    for image in images:
        if image.get('file_name') is not None and not (image.get('height') and image.get('width')):
            if not (size := size_of(str(image['file_name']))):
                continue
            image['height'], image['width'] = size
        kept.append(image)
    if dropped := len(images) - len(kept):
        notes.append(f'{dropped} images without height and width are left out: there is no such file')
    return kept


def _merge(records: list[dict[str, Any]], field: str, path: str, notes: list[str]) -> list[dict[str, Any]]:
    """Return the records of different ids; those that occur several times must be equal."""
    first: dict[Any, dict[str, Any]] = {}
    repeated: Counter[Any] = Counter()
    for record in records:
        if (other := first.setdefault(record['id'], record)) is not record:
            if other != record:
                raise ValueError(f'{path}: id {record["id"]!r} occurs several times in "{field}"')
            repeated[record['id']] += 1
    if repeated:
        notes.append(f'{repeated.total()} repeated entries of "{field}" are merged, such as '
                     f'id {next(iter(repeated))!r}')
    return list(first.values())
