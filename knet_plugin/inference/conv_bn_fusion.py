"""Fusing batch norms with the convolutions before them.

mmcv's ``fuse_conv_bn`` pairs modules in the order of their construction. This breaks ConvModules that normalise first
(PIDNet, DDRNet) and convolutions with several norms. We find the pairs by running the model instead.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import mmcv.cnn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ['find_conv_bn_pairs', 'fuse_pairs']

# No subclasses: those that standardise their weights, for example, must not be fused.
_CONVOLUTIONS = (nn.Conv2d, mmcv.cnn.Conv2d)


def find_conv_bn_pairs(model: nn.Module, run: Callable[[], Any]) -> tuple[Any, list[tuple[nn.Conv2d, _BatchNorm]]]:
    """Call ``run``, which runs the model in eval mode, and return its result and the pairs that may be fused.

    The output of such a convolution goes, in every call, to one batch norm, which reads nothing else. Other modules
    that read the output go unnoticed; the logged deviation would reveal them.
    """
    calls: Counter[nn.Module] = Counter()
    sources: dict[nn.Module, list[nn.Module | None]] = defaultdict(list)

    def after_convolution(module: nn.Module, args: Any, output: Tensor) -> None:
        calls[module] += 1
        output._convolution = module, output._version  # type: ignore[attr-defined]

    def before_norm(module: nn.Module, args: Any) -> None:
        source, version = getattr(args[0], '_convolution', (None, None))
        # An in-place activation between them keeps the tensor but changes its version.
        sources[module].append(source if version == args[0]._version else None)

    handles = []
    for module in model.modules():
        if type(module) in _CONVOLUTIONS:
            handles.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, _BatchNorm) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(before_norm))
    result = run()
    for handle in handles:
        handle.remove()
    readers = Counter(source for found in sources.values() for source in set(found) if source is not None)
    pairs: list[Any] = [(found[0], norm) for norm, found in sources.items()
                        if found[0] is not None and found.count(found[0]) == len(found) == calls[found[0]]
                        and readers[found[0]] == 1]
    return result, pairs


def fuse_pairs(model: nn.Module, pairs: list[tuple[nn.Conv2d, _BatchNorm]]) -> None:
    """Replace convolutions by fused ones and their norms by ``nn.Identity``, in place."""
    replacements: dict[nn.Module, nn.Module] = {}
    for conv, norm in pairs:
        replacements[conv] = fuse_conv_bn_eval(conv, norm).requires_grad_(False)
        replacements[norm] = nn.Identity().eval()  # hosts look norms up by name
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in replacements:
                parent._modules[name] = replacements[child]
