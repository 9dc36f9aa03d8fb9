"""Whether a tensor's values can be read at no cost; reading one on another device has to wait for it."""

import torch


def is_free(tensor: torch.Tensor) -> bool:
    """Return whether the tensor is in host memory."""
    return tensor.device.type == "cpu"
