"""mmdet's COCO metrics, for annotation files as people have them."""

import os.path as osp
import tempfile
from collections.abc import Sequence
from itertools import chain
from typing import Any

import mmcv
import numpy as np
from mmdet.evaluation import CocoMetric, CocoPanopticMetric
from mmdet.evaluation.functional import pq_compute_single_core
from mmdet.evaluation.metrics.coco_panoptic_metric import VOID, PQStat, id2rgb, parse_pq_results, print_panoptic_table
from mmengine.fileio import dump
from mmengine.logging import MMLogger

from knet_plugin.datasets.coco_file import ids_of_classes
from knet_plugin.datasets.instances import CocoIndex, read_and_report
from knet_plugin.datasets.loading import check_size
from knet_plugin.datasets.panoptic_png import read_segment_ids
from knet_plugin.registry import METRICS

__all__ = ['InstanceMetric', 'PanopticMetric']


@METRICS.register_module()
class InstanceMetric(CocoMetric):
    """mmdet's ``CocoMetric``, for the annotation files that ``InstanceDataset`` reads.

    The arguments are those of ``CocoMetric``. Without any prediction, the figures are 0; mmdet gives none.
    """

    cat_ids: list[int] | None

    def __init__(self, ann_file: str | None = None, *args: Any, backend_args: dict | None = None,
                 **kwargs: Any) -> None:
        super().__init__(None, *args, backend_args=backend_args, **kwargs)
        self.ann_file = ann_file
        if ann_file is not None:
            self._coco_api = CocoIndex(read_and_report(ann_file, backend_args, panoptic=False).data)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return the figures, as fractions, from the ground truth and predictions of all images."""
        if self.ann_file is not None and self.cat_ids is None:
            names = list(self.dataset_meta['classes'])
            known = {category['name'] for category in self._coco_api.dataset['categories']}
            while names and names[-1] in self.dataset_meta.get('stuff_classes', ()) and names[-1] not in known:
                names.pop()  # a panoptic model has more classes than the file
            self.cat_ids = self._coco_api.get_cat_ids(names)
        figures = super().compute_metrics(results)
        if figures or self.format_only:
            return figures
        items = self.metric_items or ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l']
        return {f'{metric}_{item}': 0. for metric in self.metrics for item in items}


@METRICS.register_module()
class PanopticMetric(CocoPanopticMetric):
    """mmdet's ``CocoPanopticMetric``, for the annotation files that ``PanopticDataset`` reads.

    - The PNG of an image is the ``file_name`` of its annotation, below ``seg_prefix``. Pixels of no listed segment are
      void. Areas are counted in the PNG.
    - Categories are matched by name.
    - The predictions are not modified; mmdet's metric writes void into them.
    - Things or stuff that neither occur nor are predicted score 0; mmdet divides by 0.

    The arguments are those of ``CocoPanopticMetric``, but ``ann_file`` is needed, and ``nproc`` has no effect, because
    images are compared as they come.
    """

    categories: Any

    def __init__(self, ann_file: str, *args: Any, backend_args: dict | None = None, **kwargs: Any) -> None:
        super().__init__(None, *args, backend_args=backend_args, **kwargs)
        self.ann_file = ann_file
        self.data = read_and_report(ann_file, backend_args, panoptic=True).data
        self._annotations = {annotation['image_id']: annotation for annotation in self.data['annotations']}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Compare the ``pred_panoptic_seg`` of images with their ground truth.

        Adds a pair to ``results`` for each image: the annotation that ``outfile_prefix`` asks for, and the ``PQStat``
        unless ``format_only``.
        """
        if self.categories is None:
            self.categories = self._categories()
        numbers = dict(enumerate(self.categories))
        for sample in data_samples:
            annotation = self._annotations.get(sample['img_id'], {})
            name = osp.splitext(annotation.get('file_name') or osp.basename(sample['img_path']))[0] + '.png'
            predicted = dict(sample['pred_panoptic_seg'].items())
            predicted['sem_seg'] = predicted['sem_seg'].clone()
            prediction = self._parse_predictions(dict(pred_panoptic_seg=predicted), sample['img_id'], name, numbers)
            stat = None if self.format_only else self._compare(sample, annotation, prediction)
            self.results.append((None if self.tmp_dir else prediction, stat))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return PQ, SQ and RQ of all classes, things and stuff in percent, or write the result files."""
        logger = MMLogger.get_current_instance()
        predictions, stats = zip(*results, strict=True)
        if not self.tmp_dir:
            for segment in chain.from_iterable(prediction['segments_info'] for prediction in predictions):
                segment['isthing'] = self.categories[segment['category_id']]['isthing']
            dump(dict(annotations=predictions), f'{self.outfile_prefix}.panoptic.json')
            logger.info(f'results are saved in {osp.dirname(self.outfile_prefix)}')
        if self.format_only:
            return {}
        total = PQStat()
        for stat in stats:
            total += stat
        averages: dict[str, dict] = {}
        classwise: dict[int, dict] = {}
        for name, isthing in (('All', None), ('Things', True), ('Stuff', False)):
            averages[name], by_category = _average(total, self.categories, isthing)
            classwise |= by_category
        names = {self.categories[number]['name']: figures for number, figures in classwise.items()}
        print_panoptic_table(averages, names if self.classwise else None, logger=logger)
        return parse_pq_results(averages)

    def _categories(self) -> dict[int, dict]:
        """Categories by id, in the order of ``dataset_meta['classes']``."""
        names, things = self.dataset_meta['classes'], self.dataset_meta.get('thing_classes', ())
        known = {category['name']: category for category in self.data['categories']}
        numbers = ids_of_classes(self.data, names)
        return {number: dict(id=number, name=name, isthing=int(known.get(name, {}).get('isthing', name in things)))
                for number, name in zip(numbers, names, strict=True)}

    def _compare(self, sample: dict, annotation: dict, prediction: dict) -> PQStat:
        """Compare the prediction for an image with its PNG, in which pixels of no listed segment are void."""
        if not annotation:
            raise ValueError(f'ann_file {self.ann_file} has no annotation of image {sample["img_id"]!r}, '
                             f'{sample["img_path"]}')
        path, segments = osp.join(self.seg_prefix or '', annotation['file_name']), annotation['segments_info']
        ids = read_segment_ids(path, [segment['id'] for segment in segments], self.backend_args)
        check_size('seg_map_path', path, ids.shape, sample['ori_shape'], 'image')
        areas = dict(zip(*np.unique(ids, return_counts=True), strict=True))
        listed = [dict(segment, area=areas[segment['id']]) for segment in segments
                  if segment['id'] in areas and segment['category_id'] in self.categories]
        void = areas.keys() - {segment['id'] for segment in listed}
        ids = np.where(np.isin(ids, list(void)), VOID, ids)
        with tempfile.TemporaryDirectory() as folder:
            mmcv.imwrite(id2rgb(ids)[:, :, ::-1], osp.join(folder, 'truth.png'))
            truth = dict(image_id=sample['img_id'], file_name='truth.png', segments_info=listed)
            return pq_compute_single_core(0, [(truth, prediction)], folder, self.seg_out_dir, self.categories)


def _average(stat: PQStat, categories: dict[int, dict], isthing: bool | None) -> tuple[dict, dict]:
    """``PQStat.pq_average``, or zeros where no class occurs in it."""
    try:
        return stat.pq_average(categories, isthing)
    except ZeroDivisionError:
        zero = dict(pq=0., sq=0., rq=0.)
        return dict(zero, n=0), dict.fromkeys(categories, zero) if isthing is None else {}
