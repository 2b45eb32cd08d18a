"""What the benchmark measures: one module per mode."""

from cases import detectors, engines, post_processing, segmentors, stages, training
from cases.mode import BEFORE, OURS, Measured, Mode

__all__ = ['BEFORE', 'MODES', 'OURS', 'Measured', 'Mode']

MODES = {
    'stages': stages.MODE,
    'post-processing': post_processing.MODE,
    'training': training.MODE,
    'saving': training.SAVING,
    'detectors': detectors.MODE,
    'segmentors': segmentors.MODE,
    'engines': engines.MODE,
}
