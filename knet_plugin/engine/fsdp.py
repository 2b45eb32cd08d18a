"""Training with sharded parameters that equals training without, and leaves the same checkpoints."""

from typing import Any

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

from knet_plugin.detection import KernelIterHead
from knet_plugin.registry import STRATEGIES

__all__ = ['KNetFSDPStrategy', 'wrap_large_parts']

HEADS = (KernelIterHead, BaseDecodeHead)
"""Modules that are not called but asked for losses, and use weights of their layers without calling those either."""


def wrap_large_parts(module: nn.Module, recurse: bool, nonwrapped_numel: int, min_num_params: int = 1_000_000) -> bool:
    """Torch's policy by size, for backbone and neck: what FSDP gathers and frees again by itself. Heads stay whole.

    Args:
        module: A part of the model.
        recurse: Whether the question is if its parts are to be looked at.
        nonwrapped_numel: Its parameters, without those of parts that are wrapped.
        min_num_params: How many make it worth while.
    """
    return not isinstance(module, HEADS) and size_based_auto_wrap_policy(
        module, recurse, nonwrapped_numel, min_num_params=min_num_params)


@STRATEGIES.register_module()
class KNetFSDPStrategy(FSDPStrategy):
    """mmengine's strategy, with whole checkpoints that can be resumed from, and gradients clipped by their whole norm.

    Args:
        model_wrapper: Options of mmengine's ``MMFullyShardedDataParallel``. By default, ``auto_wrap_policy`` is
            ``wrap_large_parts``.
        kwargs: mmengine's, but for ``state_dict_cfg``.
    """

    def __init__(self, *, model_wrapper: dict | None = None, **kwargs: Any) -> None:
        # On the CPU, what torch takes for the copy that offloading makes is the memory that it is about to free.
        config = dict(rank0_only=True, offload_to_cpu=get_device() != 'cpu')
        super().__init__(
            model_wrapper=dict(auto_wrap_policy=wrap_large_parts) | (model_wrapper or {}),
            state_dict_cfg=dict(
                state_dict_type='FULL_STATE_DICT',
                state_dict_config=dict(config, type='FullStateDictConfig'),
                optim_state_dict_config=dict(config, type='FullOptimStateDictConfig')),
            **kwargs)

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> Any:
        """Build the optimizer, and let it clip the norm of the whole gradient instead of that of each process's shard.

        Args:
            optim_wrapper: Its config, or what was built from it.
            model: The sharded model.
        """
        built = super().build_optim_wrapper(optim_wrapper, model)
        if isinstance(built, OptimWrapper) and getattr(built, 'clip_func', None) is nn.utils.clip_grad_norm_:
            built.clip_func = self._clip_grad_norm
        return built

    def _clip_grad_norm(self, parameters: list[nn.Parameter], **kwargs: Any) -> torch.Tensor:
        return self.model.clip_grad_norm_(**kwargs)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load the optimizer's state.

        Args:
            state_dict: The whole one, in every process.
        """
        # torch has changed the order of these arguments since mmengine was written.
        self.optim_wrapper.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict))
