"""Triton, which PyTorch's builds for GPUs bring along on Linux: whether it is here, and how it runs its kernels.

A process interprets all kernels (in Python, on the CPU) or compiles all; that is settled when it imports Triton.
"""

import os
from importlib.util import find_spec

import torch

from mnist_gpu.device import accelerator

CHOICE = "TRITON_INTERPRET"  # the environment variable that Triton reads


def triton_missing() -> str | None:
    """That Triton is not installed, or None if it is. Does not import it."""
    return None if find_spec("triton") else "Triton is not installed (pip install triton, on Linux only)"


def imported() -> tuple:
    """triton and triton.language, with the interpreter where there is no NVIDIA GPU. ImportError: it is missing."""
    if reason := triton_missing():
        raise ImportError(f"{reason}. Elsewhere read the stored results, or use WSL or a hosted notebook.")
    if not (found := accelerator()) or found.type != "cuda":
        os.environ.setdefault(CHOICE, "1")
    import triton.language

    return triton, triton.language


def interpreted() -> bool:
    """Whether this process interprets kernels. Imports Triton."""
    triton, tl = imported()
    return not isinstance(tl.sum, triton.JITFunction)


def kernel_device() -> torch.device:
    """Where this process's kernels find their tensors; the CPU where there are no kernels."""
    return torch.device("cpu" if triton_missing() or interpreted() else "cuda")


def environment(*, interpret: bool) -> dict[str, str]:
    """What to set in the environment of a process that is to interpret kernels, or to compile them."""
    # Fusion (a * b + c with one rounding) is Triton's default; 3.9 warns where it is not said.
    return {"TRITON_DEFAULT_FP_FUSION": "1"} | os.environ | {CHOICE: "1" if interpret else "0"}
