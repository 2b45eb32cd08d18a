"""Segments images in a few lines of Python, with a model of mmdet or mmseg."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from torch import nn

from knet_plugin.datasets.config_parts import plain_datasets
from knet_plugin.engine.safe_loading import safe_loading
from knet_plugin.inference.images import split_pipeline
from knet_plugin.inference.run_folder import find_weights
from knet_plugin.visualization import Result, draw
from knet_plugin.visualization.sample_result import result_of_sample

__all__ = ['Predictor']


class Predictor:
    """A trained model that takes images and returns ``Result``.

    ::

        predictor = Predictor('work_dirs/ped-panoptic')
        result, = predictor('photo.jpg')
        picture = predictor.draw('photo.jpg', result)

    Args:
        run: Work folder of a training, or path or name of a config.
        checkpoint: Path or URL of the weights. By default the best checkpoint of the work folder, or the published
            weights of one of our configs.
        device: For example 'cpu' or 'cuda:1'; by default a GPU if there is one.
        score_thr: Lowest score of a thing in K-Net's panoptic map and of what ``draw`` shows. By default the
            model's own threshold, which is 0.3 in the published models.
        batch_size: Images that the model computes at once; images of different size are never in one batch.

    Attributes:
        classes: Names of the classes.
        num_things: The first classes are things.
        palette: RGB of each class, or None if the model has none.
        meta: ``dataset_meta`` as the hosts use it.
        model: The model, a module in evaluation mode.

    Raises:
        RunError: There is no such config or checkpoint.
        CheckpointError: The checkpoint cannot be read, or would run code.
    """

    def __init__(self, run: str | Path, checkpoint: str | Path | None = None, device: str | None = None,
                 score_thr: float | None = None, batch_size: int = 1) -> None:
        config, weights = find_weights(run, checkpoint)
        self.batch_size = batch_size
        self.cfg = Config.fromfile(config)
        self._scope = self.cfg.get('default_scope')
        with DefaultScope.overwrite_default_scope(self._scope):
            self.model = revert_sync_batchnorm(MODELS.build(_without_downloads(self.cfg.model)))
            self.reader, self._pipeline = split_pipeline(self.cfg.test_dataloader)
        with safe_loading():
            stored = load_checkpoint(self.model, weights, map_location='cpu')
        self.model.to(device or get_device()).eval()
        self.meta = _meta(self.model, stored.get('meta') or {}, self.cfg)
        self.classes: tuple[str, ...] = tuple(self.meta['classes'])
        palette = self.meta.get('palette')
        self.palette = None if palette is None or isinstance(palette, str) else palette
        self.num_things = len(self.meta.get('thing_classes') or self.classes)
        self.score_thr = self._set_threshold(score_thr)

    def __call__(self, images: Any) -> list[Result]:
        """Segment one image or several, and return a result of the size of the image for each.

        An image is a path, a PIL image, or an array: (H, W, 3) in the order RGB, (H, W), or (H, W, C) as the loader of
        the config reads it.

        Raises:
            ValueError: An image cannot be read; the message names the file.
        """
        if isinstance(images, str | np.ndarray) or not isinstance(images, Iterable):
            images = [images]
        results: list[Result] = []
        batch: list[dict[str, Any]] = []
        with DefaultScope.overwrite_default_scope(self._scope):
            for image in images:
                data = self._pipeline(self.reader.inputs(image))
                if batch and (len(batch) == self.batch_size or data['inputs'].shape != batch[0]['inputs'].shape):
                    results += self._predict(batch)
                    batch = []
                batch.append(data)
            return results + self._predict(batch)

    def draw(self, image: Any, result: Result, what: str | None = None, score_thr: float | None = None) -> np.ndarray:
        """Draw a result on the image that gave it; return the picture, (H, W, 3) uint8 RGB.

        Args:
            image: The image.
            result: The result.
            what: 'panoptic', 'instances' or 'semantic'; by default the first that the result has.
            score_thr: Lowest score; by default that of the predictor.
        """
        threshold = self.score_thr if score_thr is None else score_thr
        return draw(self.reader.picture(image), result, self.classes, what, self.palette, threshold)

    def prepare(self, image: Any) -> tuple[torch.Tensor, Any]:
        """Return the model's input of an image, (1, C, H, W) with padding, and its data sample.

        Raises:
            ValueError: The image cannot be read.
        """
        with DefaultScope.overwrite_default_scope(self._scope):
            data = pseudo_collate([self._pipeline(self.reader.inputs(image))])
            data = self.model.data_preprocessor(data)
        return data['inputs'], data['data_samples'][0]

    @torch.no_grad()
    def _predict(self, batch: list[dict[str, Any]]) -> list[Result]:
        if not batch:
            return []
        samples = self.model.test_step(pseudo_collate(batch))
        return [result_of_sample(sample, self.meta) for sample in samples]

    def _set_threshold(self, threshold: float | None) -> float:
        """Give the threshold to K-Net's panoptic map too, whose pixels depend on it."""
        head = getattr(self.model, 'panoptic_fusion_head', None)
        own = (getattr(head, 'test_cfg', None) or {}).get('instance_score_thr')
        if threshold is None:
            return 0.3 if own is None else own
        if own is not None:
            head.test_cfg['instance_score_thr'] = threshold  # type: ignore[union-attr]
        return threshold


def _without_downloads(model: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a model's config without pretrained weights, which some backbones load while they are built."""
    cfg = dict(model)
    if 'backbone' in cfg:
        cfg['backbone'] = _without_downloads(cfg['backbone'])
    return dict(cfg, pretrained=None) if cfg.get('pretrained') else cfg


def _meta(model: nn.Module, stored: Mapping[str, Any], cfg: Config) -> dict[str, Any]:
    """Find the names of the classes: in the checkpoint, the config or its type of data set, as many as the model has.

    Names that the hosts lack are 'class 0' and so on.
    """
    dataset = plain_datasets(cfg.test_dataloader.dataset)[0]
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = dataset.type if isinstance(dataset.type, type) else registry.get(dataset.type)
    old = {key: stored[key.upper()] for key in ('classes', 'palette') if key.upper() in stored}
    sources = (stored.get('dataset_meta'), old, dataset.get('metainfo'), getattr(kind, 'METAINFO', None))
    things, number = _class_numbers(model)
    for source in sources:
        meta = {key.lower(): value for key, value in (source or {}).items()}
        if meta.get('classes') and number in (None, len(meta['classes'])):
            break
    else:
        meta = dict(classes=tuple(f'class {i}' for i in range(number or 1000)))
    if things is not None and things != number:
        meta.setdefault('thing_classes', meta['classes'][:things])
    return meta


def _class_numbers(model: nn.Module) -> tuple[int | None, int | None]:
    """Numbers of things and of all classes, None where the model does not say."""
    if (head := getattr(model, 'panoptic_head', None)) is not None:
        return head.num_things_classes, head.num_things_classes + head.num_stuff_classes
    head = getattr(model, 'decode_head', None)
    if isinstance(head, nn.ModuleList):
        head = head[-1]
    return None, getattr(head, 'num_classes', None)
