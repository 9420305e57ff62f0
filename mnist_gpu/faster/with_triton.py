"""Triton, which PyTorch brings along on Linux: whether it is here, and how this process runs its kernels.

Two facts decide how, and this file is the one place that knows them. Whether kernels are interpreted (by Python, on the
CPU) or compiled (for a GPU) is fixed for the whole process when Triton is imported. And a process that interprets
cannot compile: whoever needs the other way starts a process, with the environment from here.
"""

import os
import sys
from importlib.util import find_spec

from mnist_gpu.device import accelerator

CHOICE = "TRITON_INTERPRET"  # the environment variable that Triton reads


def interpreted() -> bool:
    """Whether this process interprets kernels. Triton must be importable; it is imported, so call `choose` before."""
    import triton

    return not isinstance(triton.language.sum, triton.JITFunction)


def triton_missing() -> str | None:
    """Why kernels cannot run in this process, or None if they can. Does not import Triton."""
    if not find_spec("triton"):
        return "Triton is not installed: PyTorch brings it along on Linux alone"
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


def environment(*, interpret: bool) -> dict[str, str]:
    """The environment of a process that is to interpret kernels, or to compile them, whatever this one does."""
    # Fusion (a * b + c with one rounding) is Triton's default; 3.9 warns where it is not said.
    return {"TRITON_DEFAULT_FP_FUSION": "1"} | os.environ | {CHOICE: "1" if interpret else "0"}
