"""An exported model in the place of a model, so that the hosts evaluate it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement

from knet_plugin.registry import MODELS
from knet_plugin.runtime import Predictor
from knet_plugin.visualization.sample_result import set_predictions

__all__ = ['ExportedModel']


@MODELS.register_module()
class ExportedModel(BaseModel):
    """Adds the predictions of an exported model to the samples of a test.

    It reads and resizes the images itself, as it does in use, and ignores those of the pipeline.

    Args:
        path: A file that ``knet export`` wrote with its post-processing inside.

    Raises:
        EngineError: The file cannot be used; the message says what to do.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._predictor = Predictor(path)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Exported models are not trained."""
        raise NotImplementedError

    def test_step(self, data: Mapping[str, Any]) -> list[BaseDataElement]:
        """Return the samples of a batch with predictions."""
        samples = data['data_samples']
        results = self._predictor([sample.metainfo['img_path'] for sample in samples])
        for sample, result in zip(samples, results, strict=True):
            set_predictions(sample, result, len(self._predictor.classes))
        return list(samples)

    val_step = test_step
