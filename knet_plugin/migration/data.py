"""Data sets, pipelines and evaluation of mmdet 2 and mmseg 0.x, as mmdet 3 and mmseg 1 have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from knet_plugin.migration.options import Options, Report, bare_type
from knet_plugin.migration.training import NO_COUNTERPART

__all__ = ['data_config']

META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
# Transforms whose options mean the same.
SAME = ('RandomCrop', 'PhotoMetricDistortion', 'RandomRotate', 'RandomCutOut')
PACKED = ('DefaultFormatBundle', 'ImageToTensor', 'Collect', 'ToTensor', 'Transpose', 'ToDataContainer')


def data_config(options: Options, evaluation: Mapping, scope: str, panoptic: bool, by_epoch: bool) -> dict[str, Any]:
    """Data loaders and evaluators, and the preprocessing that moved from the pipelines into the model.

    Args:
        options: The whole old config; what concerns the data is taken from it.
        evaluation: Its ``evaluation``.
        scope: ``'mmdet'`` or ``'mmseg'``.
        panoptic: Whether the model has stuff.
        by_epoch: Whether the training counts epochs.

    Returns:
        ``data_preprocessor`` (for the model), and as far as the config has data, ``*_dataloader`` and ``*_evaluator``.
    """
    migration = _DataMigration(scope, panoptic, by_epoch, options.take('data_root', ''), options.report)
    data = options.take('data')
    cfg: dict[str, Any] = {}
    if data is not None:
        cfg |= migration.loaders(data)
        cfg |= migration.evaluators(evaluation, cfg)
    elif evaluation:
        options.report.by_hand('evaluation', dict(evaluation), 'there are no data to evaluate on')
    return dict(data_preprocessor=migration.preprocessor()) | cfg


class _DataMigration:
    """What one file's pipelines have in common.

    Args:
        scope: ``'mmdet'`` or ``'mmseg'``.
        panoptic: Whether the model has stuff.
        by_epoch: Whether the training counts epochs.
        root: The file's ``data_root``, which mmdet 2's data sets have in front of every path.
        report: Where to note what is left.
    """

    def __init__(self, scope: str, panoptic: bool, by_epoch: bool, root: str, report: Report) -> None:
        self.scope = scope
        self.panoptic = panoptic
        self.by_epoch = by_epoch
        self.root = root
        self.report = report
        self.normalize: dict[str, Any] = {}
        self.pad: dict[str, Any] = {}
        self.annotations: dict[str, Any] | None = None

    def preprocessor(self) -> dict[str, Any]:
        """The model's ``data_preprocessor``."""
        if not self.normalize:
            self.report.by_hand('img_norm_cfg', None, 'there is no training pipeline with Normalize: set mean, std '
                                'and bgr_to_rgb of model.data_preprocessor')
        if self.scope == 'mmseg':
            return dict(type='SegDataPreProcessor', **self.normalize, pad_val=self.pad.get('pad_val', 0),
                        seg_pad_val=self.pad.get('seg_pad_val', 255), size=self.pad.get('size'))
        cfg = dict(type='DetDataPreprocessor', **self.normalize, pad_mask=True,
                   pad_size_divisor=self.pad.get('size_divisor') or 32)
        return cfg | dict(pad_seg=True, seg_pad_value=255) if self.panoptic else cfg

    # Data sets and loaders.

    def loaders(self, data: Any) -> dict[str, Any]:
        """``train_dataloader``, ``val_dataloader`` and ``test_dataloader``."""
        with Options(data, 'data', self.report) as options:
            batch, workers = options.take('samples_per_gpu', 1), options.take('workers_per_gpu', 2)
            train_batch = options.take('train_dataloader', {}).get('samples_per_gpu', batch)
            cfg: dict[str, Any] = {}
            if (train := options.take('train')) is not None:
                sampler = dict(type='DefaultSampler' if self.by_epoch else 'InfiniteSampler', shuffle=True)
                cfg['train_dataloader'] = dict(batch_size=train_batch, num_workers=workers,
                                               persistent_workers=workers > 0, sampler=sampler)
                if self.scope == 'mmdet':
                    cfg['train_dataloader']['batch_sampler'] = dict(type='AspectRatioBatchSampler')
                cfg['train_dataloader']['dataset'] = self.dataset(train, 'data.train', test=False)
            for split in ('val', 'test'):
                if (given := options.take(split)) is not None:
                    cfg[f'{split}_dataloader'] = dict(
                        batch_size=1, num_workers=workers, persistent_workers=workers > 0, drop_last=False,
                        sampler=dict(type='DefaultSampler', shuffle=False),
                        dataset=self.dataset(given, f'data.{split}', test=True))
            options.by_hand(['val_dataloader', 'test_dataloader'], NO_COUNTERPART)
            for name, value in options.rest().items():
                self.report.by_hand(f'data.{name}', value, NO_COUNTERPART)
        return cfg

    def dataset(self, given: Any, path: str, test: bool) -> dict[str, Any]:
        """One data set, with what is around it."""
        if isinstance(given, list | tuple):
            return dict(type='ConcatDataset', datasets=[self.dataset(one, f'{path}[{i}]', test)
                                                        for i, one in enumerate(given)])
        with Options(given, path, self.report) as options:
            kind = options.require('type')
            if bare_type(kind) in ('RepeatDataset', 'ClassBalancedDataset'):
                inner = self.dataset(options.require('dataset'), f'{path}.dataset', test)
                return dict(type=kind, **options.some('times', 'oversample_thr'), dataset=inner)
            pipeline = options.take('pipeline', [])
            cfg: dict[str, Any] = dict(type=kind)
            cfg |= (self._seg_paths if self.scope == 'mmseg' else self._det_paths)(options, test)
            if (classes := options.take('classes')) is not None:
                cfg['metainfo'] = dict(classes=classes)
            if (palette := options.take('palette')) is not None:
                cfg.setdefault('metainfo', {})['palette'] = palette
            cfg['pipeline'] = (self.test_pipeline if test else self.train_pipeline)(pipeline, f'{path}.pipeline')
            for name, value in options.rest().items():
                self.report.by_hand(f'{path}.{name}', value, NO_COUNTERPART)
        return cfg

    def _seg_paths(self, options: Options, test: bool) -> dict[str, Any]:
        cfg = options.some('data_root')
        cfg['data_prefix'] = dict(img_path=options.take('img_dir'), seg_map_path=options.take('ann_dir'))
        if (split := options.take('split')) is not None:
            cfg['ann_file'] = split
        return cfg | options.some('img_suffix', 'seg_map_suffix', 'ignore_index', 'reduce_zero_label')

    def _det_paths(self, options: Options, test: bool) -> dict[str, Any]:
        root = options.take('data_root') or self.root
        prefix = dict(img=options.take('img_prefix', ''))
        if (seg := options.take('seg_prefix')) is not None:
            prefix['seg'] = seg
        paths = [options.require('ann_file'), *prefix.values()]
        if not all(path.startswith(root) for path in paths):
            root = ''
        ann_file, *folders = (path.removeprefix(root) for path in paths)
        cfg = dict(data_root=root, ann_file=ann_file, data_prefix=dict(zip(prefix, folders, strict=True)))
        empty = options.take('filter_empty_gt', True)
        if test or options.take('test_mode', False):
            options.some('test_mode')
            return cfg | dict(test_mode=True)
        return cfg | dict(filter_cfg=dict(filter_empty_gt=empty, min_size=32))  # as mmdet 2 filters, unasked

    # Pipelines.

    def train_pipeline(self, pipeline: list, path: str) -> list[dict]:
        """The transforms of the training; padding and normalisation are the model's now."""
        result: list[dict] = []
        for i, transform in enumerate(pipeline):
            result += self._transform(transform, f'{path}[{i}]', test=False)
        return [*result, dict(type='PackDetInputs' if self.scope == 'mmdet' else 'PackSegInputs')]

    def test_pipeline(self, pipeline: list, path: str) -> list[dict]:
        """The transforms of the evaluation, which loads its ground truth after the resizing now."""
        result: list[dict] = []
        for i, transform in enumerate(pipeline):
            result += self._transform(transform, f'{path}[{i}]', test=True)
        if self.annotations is not None:
            result.append(dict(self.annotations))
        elif self.scope == 'mmseg' or self.panoptic:
            self.report.by_hand(path, '...', 'no training pipeline says how to load the ground truth: add it')
        if self.scope == 'mmseg':
            return [*result, dict(type='PackSegInputs')]
        return [*result, dict(type='PackDetInputs', meta_keys=META_KEYS)]

    def _transform(self, transform: Any, path: str, test: bool) -> list[dict]:
        with Options(transform, path, self.report) as options:
            kind = bare_type(options.require('type'))
            return self._translated(kind, options, test)

    def _translated(self, kind: str, options: Options, test: bool) -> list[dict]:
        """The new transforms of an old one: none, one, or those inside it."""
        if kind == 'LoadImageFromFile':
            self._file_client(options)
            if self.scope == 'mmdet' and not test:  # the inferencers look for mmcv's in the test pipeline
                kind = 'knet_plugin.LoadImageFromFile'
            return [dict(type=kind, **options.some('to_float32', 'color_type'))]
        if kind in ('LoadAnnotations', 'LoadPanopticAnnotations'):
            self._file_client(options)
            self.annotations = dict(type=kind, **options.some(
                'with_bbox', 'with_label', 'with_mask', 'with_seg', 'poly2mask', 'reduce_zero_label',
                'imdecode_backend'))
            if self.scope == 'mmdet':
                self.annotations['type'] = f'knet_plugin.{kind}'
            return [] if test else [dict(self.annotations)]
        if kind == 'MultiScaleFlipAug':
            return self._test_scale(options)
        if kind == 'Resize':
            return [_resize(options)]
        if kind == 'RandomFlip':
            return self._flip(options, test)
        if kind == 'Normalize':
            self.normalize = dict(mean=options.require('mean'), std=options.require('std'),
                                  bgr_to_rgb=options.take('to_rgb', True))
            return []
        if kind == 'Pad':
            pad = options.some('size', 'size_divisor', 'pad_val', 'seg_pad_val')
            self.pad = self.pad if test else pad
            return []
        if kind in PACKED:
            if (meta := options.take('meta_keys')) is not None:
                self.report.by_hand(options.at('meta_keys'), meta, 'set those of PackDetInputs or PackSegInputs')
            options.some('keys')
            return []
        rest = options.rest()
        if kind not in SAME:
            self.report.by_hand(options.path, dict(type=kind, **rest), 'kept as it is; look up its present options')
        return [dict(type=kind, **rest)]

    def _file_client(self, options: Options) -> None:
        client = options.take('file_client_args')
        if client is not None and client.get('backend') != 'disk':
            self.report.by_hand(options.at('file_client_args'), client, 'files are read from disk; set backend_args')

    def _test_scale(self, options: Options) -> list[dict]:
        scale = options.take('img_scale')
        scales = scale if isinstance(scale, list) else [scale]
        augmented = {name: value for name, value in options.some('img_ratios', 'scale_factor', 'flip').items() if value}
        if augmented or len(scales) != 1:
            self.report.by_hand(options.path, dict(img_scale=scale, **augmented), 'test-time augmentation '
                                f'{NO_COUNTERPART}; the first scale alone is used')
        options.some('flip_direction')
        result = []
        for i, transform in enumerate(options.take('transforms', [])):
            if bare_type(transform.get('type')) == 'Resize':
                transform = dict(transform, img_scale=scales[0])
            result += self._transform(transform, f'{options.path}.transforms[{i}]', test=True)
        return result

    def _flip(self, options: Options, test: bool) -> list[dict]:
        probability = options.take('flip_ratio', options.take('prob'))
        options.some('prob')
        if test or probability is None:
            options.some('direction')
            return []
        return [dict(type='RandomFlip', prob=probability, **options.some('direction'))]

    # Evaluation.

    def evaluators(self, evaluation: Mapping, loaders: Mapping) -> dict[str, Any]:
        """``val_evaluator`` and ``test_evaluator``."""
        cfg: dict[str, Any] = {}
        with Options(evaluation, 'evaluation', self.report) as options:
            metric = options.take('metric')
            metrics = [metric] if isinstance(metric, str) else list(metric or [])
            options.some('interval', 'start', 'by_epoch', 'save_best')  # read with the loops and hooks
            options.drop(['pre_eval', 'gpu_collect', 'tmpdir'], 'mmengine collects results by itself')
            for name, value in options.rest().items():
                self.report.by_hand(f'evaluation.{name}', value, NO_COUNTERPART)
        for split in ('val', 'test'):
            if (loader := loaders.get(f'{split}_dataloader')) is not None:
                found = self._evaluator(loader['dataset'], metrics)
                if found is None:
                    self.report.by_hand('evaluation', dict(evaluation), f'for {loader["dataset"]["type"]} it '
                                        f'{NO_COUNTERPART}: set {split}_evaluator')
                else:
                    cfg[f'{split}_evaluator'] = found
        return cfg

    def _evaluator(self, dataset: Mapping, metrics: list[str]) -> dict | list | None:
        if self.scope == 'mmseg':
            names = [name for name in metrics if name in ('mIoU', 'mDice', 'mFscore')]
            return dict(type='IoUMetric', iou_metrics=names or ['mIoU'])
        kind = bare_type(dataset['type'])
        ann_file = dataset.get('data_root', '') + dataset.get('ann_file', '')
        if kind == 'CocoDataset':
            return dict(type='CocoMetric', ann_file=ann_file, metric=metrics or ['bbox', 'segm'])
        if kind != 'CocoPanopticDataset':
            return None
        found: list[dict] = [dict(type='CocoPanopticMetric', ann_file=ann_file,
                                  seg_prefix=dataset['data_root'] + dataset['data_prefix'].get('seg', ''))]
        # COCO's own files of the same images are named alike, and the model answers all three questions.
        instances = re.sub(r'panoptic_(\w+\.json)$', r'instances_\1', ann_file)
        if instances != ann_file:
            found.append(dict(type='CocoMetric', ann_file=instances, metric=['segm', 'bbox']))
            self.report.by_hand('val_evaluator[1].ann_file', instances, 'added for the AP of the instances; if you do '
                                'not have this file, remove the CocoMetric')
        return [*found, dict(type='SemSegMetric')]


def _resize(options: Options) -> dict:
    """Fixed, from a range, or from a choice: three transforms now."""
    scale, ratios = options.take('img_scale'), options.take('ratio_range')
    keep = dict(keep_ratio=options.take('keep_ratio', True), **options.some('interpolation', 'backend'))
    mode = options.take('multiscale_mode', 'range')
    options.drop(['override', 'bbox_clip_border'], 'the default is kept')
    scale = scale[0] if isinstance(scale, list) and len(scale) == 1 else scale
    if ratios is not None:
        return dict(type='RandomResize', scale=scale, ratio_range=ratios, **keep)
    if isinstance(scale, list):
        if mode == 'value':
            return dict(type='RandomChoiceResize', scales=scale, **keep)
        return dict(type='RandomResize', scale=scale, **keep)
    return dict(type='Resize', scale=scale, **keep)
