"""Fusing batch norms with the convolutions before them.

mmcv's ``fuse_conv_bn`` pairs modules by the order in which they were made, which is not always the order in which they
are called: it breaks ConvModules that normalise first (PIDNet, DDRNet) and convolutions that several norms share. So
the pairs are found by watching the model run. Fusing a pair is torch's.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import mmcv.cnn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ['find_conv_bn_pairs', 'fuse_pairs']

# Exactly these: a subclass (standardised or parametrised weights) may compute something else.
_CONVOLUTIONS = (nn.Conv2d, mmcv.cnn.Conv2d)


def find_conv_bn_pairs(model: nn.Module, run: Callable[[], Any]) -> tuple[Any, list[tuple[nn.Conv2d, _BatchNorm]]]:
    """Watch which batch norm reads what which convolution yields, and nothing else, each time that either is called.

    Where something that is no norm reads a convolution's output, too, this cannot be seen: the comparison of the
    optimised model with the plain one shows it.

    Args:
        model: The model, in eval mode.
        run: Runs the model. What it leaves out (auxiliary heads) is not paired.

    Returns:
        What ``run`` returned, and the pairs that may be fused.
    """
    calls: Counter[nn.Module] = Counter()
    sources: dict[nn.Module, list[nn.Module | None]] = defaultdict(list)

    def after_convolution(module: nn.Module, args: Any, output: Tensor) -> None:
        calls[module] += 1
        output._convolution = module, output._version  # type: ignore[attr-defined]

    def before_norm(module: nn.Module, args: Any) -> None:
        source, version = getattr(args[0], '_convolution', (None, None))
        # An activation in place would leave the same tensor, in another version.
        sources[module].append(source if version == args[0]._version else None)

    handles = []
    for module in model.modules():
        if module._forward_hooks or module._forward_pre_hooks:  # somebody wants to see it
            continue
        if type(module) in _CONVOLUTIONS:
            handles.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, _BatchNorm) and module.running_mean is not None and not module.training:
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        result = run()
    finally:
        for handle in handles:
            handle.remove()
    readers = Counter(source for found in sources.values() for source in set(found) if source is not None)
    pairs: list[Any] = []
    for norm, found in sources.items():
        source = found[0]
        if source is not None and set(found) == {source} and readers[source] == 1 and calls[source] == len(found):
            pairs.append((source, norm))
    return result, pairs


def fuse_pairs(model: nn.Module, pairs: list[tuple[nn.Conv2d, _BatchNorm]]) -> None:
    """Replace each convolution by the fused one and its norm by nothing, wherever in the model they are registered.

    Args:
        model: The model, in eval mode; it is changed.
        pairs: Convolutions and batch norms.
    """
    replacements: dict[nn.Module, nn.Module] = {}
    for conv, norm in pairs:
        replacements[conv] = fuse_conv_bn_eval(conv, norm).requires_grad_(False)
        replacements[norm] = nn.Identity().eval()  # hosts look the norm up by its name
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in replacements:
                parent._modules[name] = replacements[child]
