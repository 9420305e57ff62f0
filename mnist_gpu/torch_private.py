"""The parts of PyTorch without a public name that the package uses, each with the versions that it was seen in."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode  # sees every operation (seen in 2.14)
from torch.utils._pytree import tree_leaves as tree_leaves  # the tensors in nested lists and dicts (seen in 2.14)


def scan(*arguments):
    """A loop that torch.compile compiles as one, without Python between its steps (seen in 2.11 to 2.15)."""
    from torch._higher_order_ops import scan  # here: where it is gone, only what needs it fails

    return scan(*arguments)


def onednn_missing() -> str | None:
    """That this build has no oneDNN, or not the operator of `onednn_product`; None if it has both."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return None if there else "this build of PyTorch has no oneDNN"


def onednn_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`a @ b.t()` in float32 by oneDNN, `[m, k]` and `[n, k]` to `[m, n]`: what torch.compile uses (seen in 2.14)."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
