"""For a config to import: all in 64 bits, where the order of a sum changes nothing that a threshold would notice."""

import torch

torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double  # type: ignore[assignment]
