"""An accelerator for tests where there is none: importing this package gives the process two cards, sim:0 and sim:1.

Their memory is the host's and their operations are the CPU's, so results are the CPU's, bit for bit. As on a real one,
tensors of different devices cannot be mixed, random numbers are its own, memory is limited (8 GiB a card); and it is
counted what was launched, and how often the host waited. But operations are done when they are launched, whatever their
stream; there is no torch.compile; and `x[index] = value` is never counted as a wait.

A *launch* is an operation, or a copy, that was given to a card. The host *waits* when it needs something back: `item`,
a copy to the host, a copy from the host without `non_blocking`, an operation whose result's size depends on values. A
*synchronization* is a wait that was asked for. After either, nothing is *pending* on that card.

The folder autoload/ on PYTHONPATH makes `import torch` import this package, by PyTorch's entry points for devices: the
fixture `simulated_environment` gives that to whole programs, such as pytest and notebook kernels.
"""

from collections import Counter

import torch

from .build import library

torch.utils.rename_privateuse1_backend("sim")
torch.ops.load_library(library())

from . import device_module  # noqa: E402  its operators are in the library

torch._register_device_module("sim", device_module)

_ops = torch.ops.simulated_accelerator


def pending(device: torch.device | str = "sim") -> int:
    """How many launches the host has given to `device` since it last waited for it, in whatever way."""
    return _ops.pending(device_module.index_of(device))


def launches(device: torch.device | str = "sim") -> Counter[str]:
    """How often each operation was launched on `device`, by name: aten::addmm, copy from the host, ..."""
    return Counter(_ops.launches(device_module.index_of(device)))


def waits() -> Counter[str]:
    """How often the host waited for either card, by cause; synchronizations are not among them."""
    return Counter(_ops.waits())


def synchronizations(device: torch.device | str = "sim") -> int:
    """How often the host was told to wait for `device`: torch.accelerator.synchronize and the like."""
    return _ops.synchronizations(device_module.index_of(device))


def reset() -> None:
    """Sets all counts to zero."""
    _ops.reset()


def loaded() -> None:
    """What PyTorch calls by the entry point, when the import has done everything."""
