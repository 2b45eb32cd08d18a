"""Fully sharded data parallel (FSDP) training with the results and checkpoints of unsharded training."""

from typing import Any

from mmengine._strategy import FSDPStrategy
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

from knet_plugin.registry import STRATEGIES

__all__ = ['KNetFSDPStrategy', 'wrap_large_parts']


def wrap_large_parts(module: nn.Module, recurse: bool, nonwrapped_numel: int, min_num_params: int = 1_000_000) -> bool:
    """Apply torch's ``size_based_auto_wrap_policy`` outside heads, which stay whole.

    FSDP gathers the weights of a module when it is called. But models call methods of a head, such as ``loss``, and
    heads read weights of layers that they do not call.
    """
    is_head = hasattr(module, 'loss') and hasattr(module, 'predict') and not hasattr(module, 'train_step')
    return not is_head and size_based_auto_wrap_policy(module, recurse, nonwrapped_numel, min_num_params)


@STRATEGIES.register_module()
class KNetFSDPStrategy(FSDPStrategy):
    """mmengine's strategy that writes whole checkpoints, resumes from them, and clips gradients by their global norm.

    It has the options of ``FSDPStrategy``, except ``state_dict_cfg``. By default, ``auto_wrap_policy`` in
    ``model_wrapper`` is ``wrap_large_parts``.
    """

    def __init__(self, *, model_wrapper: dict | None = None, **kwargs: Any) -> None:
        on_cpu = get_device() == 'cpu'
        wrapper = dict(auto_wrap_policy=wrap_large_parts, **(dict(device_id='cpu') if on_cpu else {}))
        # On CPUs, torch's offloaded copy shares memory with the parameters that FSDP frees.
        config = dict(rank0_only=True, offload_to_cpu=not on_cpu)
        super().__init__(
            model_wrapper=wrapper | (model_wrapper or {}),
            state_dict_cfg=dict(
                state_dict_type='FULL_STATE_DICT',
                state_dict_config=dict(config, type='FullStateDictConfig'),
                optim_state_dict_config=dict(config, type='FullOptimStateDictConfig')),
            **kwargs)

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> Any:
        """Build the optimizer wrapper and let it clip the norm over all shards, not over each."""
        built = super().build_optim_wrapper(optim_wrapper, model)
        if isinstance(built, OptimWrapper) and getattr(built, 'clip_func', None) is nn.utils.clip_grad_norm_:
            built.clip_func = lambda parameters, **kwargs: self.model.clip_grad_norm_(**kwargs)
        return built

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load the optimizer's whole state, which every process has. (mmengine expects torch's former signature.)"""
        self.optim_wrapper.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict))
