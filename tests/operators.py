"""Watching which operators run, on what."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Name, types of arguments and bytes of the result of every operator; views do not count as made."""

    def __init__(self):
        super().__init__()
        self.called = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        inputs = [value for value in args if isinstance(value, torch.Tensor)]
        places = {value.untyped_storage().data_ptr() for value in inputs}
        made = [value.nbytes for value in (result if isinstance(result, (tuple, list)) else [result])
                if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() not in places]
        self.called.append((operator._schema.name.removeprefix('aten::'), {value.dtype for value in inputs},
                            max(made, default=0)))
        return result
