"""Kernels compiled for cards that are not here: Triton comes with all that it takes, and asks for no driver."""

from collections.abc import Sequence
from types import SimpleNamespace

import torch

from mnist_gpu.chapters.chapter_10.watched import kernel_from, source_of
from mnist_gpu.faster.with_triton import environment
from mnist_gpu.measuring.processes import process

# Cards of several generations, and their targets for Triton: backend, architecture, threads of a warp.
TARGETS = {"T4": ("cuda", 75, 32), "A100": ("cuda", 80, 32), "H100": ("cuda", 90, 32), "MI300X": ("hip", "gfx942", 64)}


def assembly(kernel, arguments: dict, cards: Sequence[str] = tuple(TARGETS)) -> dict[str, str]:
    """A kernel, compiled by another process for these arguments and each of `cards`, in NVIDIA's PTX or AMD's assembly.

    It may use what it gets, `triton` and `tl`. Raises RuntimeError, with the compiler's reason, if it does not compile.
    """
    arguments = {name: a.to("meta") if torch.is_tensor(a) else a for name, a in arguments.items()}
    with process(environment(interpret=False)) as call:
        return {card: call(_assembly, source_of(kernel), arguments, TARGETS[card]) for card in cards}


def _assembly(source: str, arguments: dict, target: tuple) -> str:
    import triton
    from triton.backends.compiler import GPUTarget

    # In place of a card's driver, which tells Triton what to compile for.
    told = {"target": GPUTarget(*target), "device": target, "stream": None}
    answers = {f"get_current_{name}": lambda *_, value=value: value for name, value in told.items()}
    triton.runtime.driver.set_active(SimpleNamespace(**answers))
    try:
        found = kernel_from(source).warmup(grid=(1,), **arguments).asm
    except Exception as error:  # of many kinds, not all of which another process could be told
        raise RuntimeError(f"it does not compile for {target[1]}: {error}") from None
    return found["ptx"] if "ptx" in found else found["amdgcn"]
