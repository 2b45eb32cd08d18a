"""The data sets and metrics that a config refers to."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope

from knet_plugin.datasets.check.report import Report
from knet_plugin.registry import SCOPE

__all__ = ['SECTIONS', 'Metric', 'Source', 'read_metrics', 'read_sources', 'transform_name']

SECTIONS = ('train', 'val', 'test')
# What a data set is, by the class of mmdet or mmseg that it extends; the first that fits.
_KINDS = dict(CocoPanopticDataset='panoptic', CocoDataset='instances', BaseSegDataset='semantic')
_METRICS = dict(CocoMetric='instances', InstanceMetric='instances', CocoPanopticMetric='panoptic',
                PanopticMetric='panoptic', IoUMetric='semantic')


@dataclass(frozen=True)
class Source:
    """A data set inside a config.

    Attributes:
        section: 'train', 'val' or 'test'.
        dataset: Built without reading anything, so it has the paths and defaults of the host.
        metainfo: Its classes.
        kind: 'instances', 'panoptic' or 'semantic'.
        pipeline: Its transforms and those of its wrappers.
        times: How often a wrapper repeats it.
    """

    section: str
    dataset: Any
    metainfo: Mapping[str, Any]
    kind: str
    pipeline: tuple[Mapping, ...]
    times: int = 1

    @property
    def ours(self) -> bool:
        """Whether the data set takes annotation files as people have them."""
        return type(self.dataset).__module__.startswith(SCOPE)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their labels."""
        return list(self.metainfo.get('classes') or ())

    @property
    def things(self) -> list[str]:
        """Names of the classes with objects."""
        return list(self.metainfo.get('thing_classes') or self.classes) if self.kind != 'semantic' else []

    @property
    def void(self) -> int:
        """The label of pixels without class in semantic segmentation."""
        return (self.transform('LoadLabels') or {}).get('ignore_index', 255)

    def uses_ours(self, ending: str) -> bool:
        """Whether the transform whose name ends so is one of ours."""
        kind = (self.transform(ending) or {}).get('type', '')
        return (kind if isinstance(kind, str) else kind.__module__).startswith(SCOPE)

    def transform(self, ending: str) -> Mapping | None:
        """The first transform whose name ends so."""
        return next((each for each in self.pipeline if transform_name(each).endswith(ending)), None)


@dataclass(frozen=True)
class Metric:
    """A metric; ``kind`` is that of the data sets that it judges."""

    section: str
    options: Mapping
    kind: str
    ours: bool

    @property
    def ann_file(self) -> str | None:
        """The annotation file, or None if the metric takes the ground truth from the data set."""
        return self.options.get('ann_file')


def transform_name(transform: Mapping) -> str:
    """The class name of a transform's config, without scope and module."""
    kind = transform.get('type', '') if isinstance(transform, Mapping) else type(transform)
    return (kind if isinstance(kind, str) else kind.__name__).split('.')[-1]


def read_sources(cfg: Config, section: str, report: Report) -> list[Source]:
    """Build the data sets of a section without reading their files; what cannot be built is an error of the report.

    Data sets that are none of mmengine's kind, or of a kind that the check does not know, are left out.
    """
    loader = cfg.get(f'{section}_dataloader')
    if not isinstance(loader, Mapping) or not isinstance(loader.get('dataset'), Mapping):
        return []
    sources = []
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        for options, pipeline, times in _unwrapped(loader['dataset']):
            dataset = _build(options, f'{section}_dataloader', report)
            names = [base.__name__ for base in type(dataset).__mro__]
            kind = next((kind for name, kind in _KINDS.items() if name in names), None)
            if kind:
                sources.append(Source(section, dataset, dataset.metainfo, kind, tuple(pipeline), times))
    return sources


def _unwrapped(options: Mapping, pipeline: tuple = (), times: int = 1) -> Iterator[tuple[Mapping, tuple, int]]:
    """Yield the data sets inside wrappers that repeat, concatenate, mix or balance them."""
    pipeline = (*pipeline, *(options.get('pipeline') or ()))
    times *= options.get('times') or 1
    inner = options.get('datasets') or [options.get('dataset')]
    if not any(isinstance(each, Mapping) for each in inner):
        yield options, pipeline, times
    for each in inner:
        if isinstance(each, Mapping):
            yield from _unwrapped(each, pipeline, times)


def _build(options: Mapping, field: str, report: Report) -> Any:
    """Build a data set without reading its files; None if that is impossible."""
    try:
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(options['type']) if isinstance(options['type'], str) else options['type']
        if kind is None:
            report.error(f'{field}: no data set {options["type"]!r} is registered; is custom_imports missing?')
        elif issubclass(kind, BaseDataset) and not _broken_metainfo(options, field, report):
            given = {key: value for key, value in options.items() if key not in ('type', '_scope_')}
            return kind(**dict(given, pipeline=[], lazy_init=True))
    except ImportError as error:
        report.error(f'{field}: {options["type"]} needs a package that is missing here: {error}')
    except Exception as error:  # a data set may refuse its arguments in any way
        report.error(f'{field}: {options.get("type")} refuses its options: {type(error).__name__}: {error}')
    return None


def _broken_metainfo(options: Mapping, field: str, report: Report) -> bool:
    """Report classes that are no list of names: mmengine would take a text for its letters, or for a file."""
    metainfo = options.get('metainfo') or {}
    classes = metainfo.get('classes', ()) if isinstance(metainfo, Mapping) else metainfo
    if isinstance(classes, str) and not os.path.isfile(classes):
        report.error(f'{field}: metainfo.classes must be a list of names, got the text {classes!r}; '
                     f'write classes=({classes!r}, )')
        return True
    return False


def read_metrics(cfg: Config, section: str) -> list[Metric]:
    """The metrics of a section that the check knows."""
    given = cfg.get(f'{section}_evaluator') or []
    metrics = []
    for options in given if isinstance(given, list | tuple) else [given]:
        name = transform_name(options)
        if isinstance(options, Mapping) and name in _METRICS:
            metrics.append(Metric(section, options, _METRICS[name], name in ('InstanceMetric', 'PanopticMetric')))
    return metrics
