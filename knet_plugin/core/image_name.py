"""Names of images in messages."""

from mmengine.structures import BaseDataElement

__all__ = ['image_name']


def image_name(sample: BaseDataElement, field: str = 'img_path') -> str:
    """Return the file of a data sample, for messages."""
    return sample.metainfo.get(field) or f'an image without {field}'
