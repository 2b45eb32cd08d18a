"""What a run needs besides the model: hooks, seeding, several processes, resuming."""

from knet_plugin.engine.checkpoint_hook import CheckpointHook
from knet_plugin.engine.finite_inputs import FiniteInputHook
from knet_plugin.engine.fsdp import KNetFSDPStrategy
from knet_plugin.engine.progress import ProgressHook
from knet_plugin.engine.safe_loading import SafeLoadingHook
from knet_plugin.engine.seeding import NumberedSampler, SeededDataset, SeedHook
from knet_plugin.engine.stopping import StopHook
from knet_plugin.engine.time_limit import TimeLimitHook
from knet_plugin.engine.validation_report import ValidationReportHook

__all__ = ['CheckpointHook', 'FiniteInputHook', 'KNetFSDPStrategy', 'NumberedSampler', 'ProgressHook',
           'SafeLoadingHook', 'SeedHook', 'SeededDataset', 'StopHook', 'TimeLimitHook', 'ValidationReportHook']
