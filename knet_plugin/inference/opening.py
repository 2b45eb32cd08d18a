"""Opens a model of any kind: an exported one, or the run of a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from knet_plugin import runtime
from knet_plugin.cli import ResourceError
from knet_plugin.compat import HostPackageError, check_host_packages
from knet_plugin.inference.inputs import InputError
from knet_plugin.inference.run_folder import RunError

if TYPE_CHECKING:
    from knet_plugin import Predictor

__all__ = ['OPENING_ERRORS', 'open_predictor']

# What a command reports as one line.
OPENING_ERRORS = (HostPackageError, InputError, OSError, ResourceError, RunError, runtime.EngineError)


def open_predictor(model: str, checkpoint: str | None = None, device: str | None = None,
                   score_thr: float | None = None, batch_size: int = 1,
                   threads: int = 0) -> Predictor | runtime.Predictor:
    """Open a model.

    Args:
        model: An exported model; all other arguments but the threshold are then unused. Or what ``Predictor`` takes.
        checkpoint: See ``Predictor``, as for the next three.
        device: For example 'cuda:1'.
        score_thr: Lowest score of an object.
        batch_size: Images at once.
        threads: Threads of the engine of an exported model; 0, all cores.

    Raises:
        OPENING_ERRORS: The model cannot be opened; the message says why.
    """
    if Path(model).suffix in runtime.ENGINE_SUFFIXES:
        return runtime.Predictor(model, score_thr, threads)
    check_host_packages()  # exported models work without them
    import torch

    from knet_plugin import Predictor
    from knet_plugin.checkpoint import CheckpointError

    if str(device).startswith('cuda') and not torch.cuda.is_available():
        raise InputError(f'--device {device}: torch finds no GPU here')
    try:
        return Predictor(model, checkpoint, device, score_thr, batch_size)
    except CheckpointError as error:
        raise RunError(str(error)) from error
