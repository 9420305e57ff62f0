"""Triton, which PyTorch brings along on Linux: whether it is here, and how this process runs its kernels.

Two facts decide how, and this file is the one place that knows them. Whether kernels are interpreted (by Python, on the
CPU) or compiled (for a GPU) is fixed for the whole process when Triton is imported. And a process that interprets
cannot compile: whoever needs the other way starts a process, with the environment from here.
"""

import os
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import torch

from mnist_gpu.device import accelerator

CHOICE = "TRITON_INTERPRET"  # the environment variable that Triton reads


def interpreted() -> bool:
    """Whether this process interprets kernels. Triton must be importable; it is imported, so call `choose` before."""
    import triton

    return not isinstance(triton.language.sum, triton.JITFunction)


def not_installed() -> str | None:
    """That Triton is not installed, or None if it is. Does not import it."""
    return None if find_spec("triton") else "Triton is not installed: PyTorch brings it along on Linux alone"


def triton_missing() -> str | None:
    """Why kernels cannot run in this process, or None if they can. Does not import Triton."""
    if reason := not_installed():
        return reason
    if "triton" in sys.modules and _device_type() != "cuda" and not interpreted():
        return (
            "there is no NVIDIA GPU, and Triton was imported before its interpreter was chosen: start Python anew, "
            f"with {CHOICE}=1 in the environment"
        )
    return None


def _device_type() -> str:
    found = accelerator()
    return found.type if found else "cpu"


def choose() -> None:
    """To be called before Triton is imported: where there is no NVIDIA GPU, its interpreter is chosen.

    What the environment says already (TRITON_INTERPRET) stays, so the interpreter can be had beside a GPU, too.

    Raises ImportError where kernels cannot run at all, and says why.
    """
    if reason := triton_missing():
        raise ImportError(reason)
    if "triton" not in sys.modules and _device_type() != "cuda":
        os.environ.setdefault(CHOICE, "1")


def kernel_device() -> torch.device:
    """Where the tensors have to be that this process's kernels work on; the CPU where there are none."""
    return torch.device("cpu" if triton_missing() or interpreted() else "cuda")


def imported() -> tuple:
    """The modules triton and triton.language, for a notebook; where Triton is missing, stand-ins.

    Those let a cell that defines a kernel run, and leave the kernel the plain function that it is, which cannot run.
    """
    if triton_missing():
        return SimpleNamespace(jit=lambda function: function), SimpleNamespace(constexpr=None)
    choose()
    import triton
    import triton.language

    return triton, triton.language


def how() -> str:
    """A sentence on how kernels run in this process, and what that says of their time."""
    if reason := triton_missing():
        return f"No kernel can run here: {reason}. The kernels are shown, and what would run them is left out."
    import triton

    version = f"Triton {triton.__version__}"
    if interpreted():
        return (
            f"{version} interprets kernels here, on the CPU, one program after another: the numbers are those of the "
            "kernels, the times are the interpreter's and say nothing. So nothing is timed."
        )
    return f"{version} compiles kernels for this GPU, and they are timed."


def environment(*, interpret: bool) -> dict[str, str]:
    """The environment of a process that is to interpret kernels, or to compile them, whatever this one does."""
    # Fusion (a * b + c with one rounding) is Triton's default; 3.9 warns where it is not said.
    return {"TRITON_DEFAULT_FP_FUSION": "1"} | os.environ | {CHOICE: "1" if interpret else "0"}
