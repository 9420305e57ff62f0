"""`torch.sim`: the module that PyTorch's device-independent Python code asks about the accelerator."""

import torch

_ops = torch.ops.simulated_accelerator


def is_available() -> bool:
    return True


def is_initialized() -> bool:
    return True


def _lazy_init() -> None:
    """There is nothing to initialize; but PyTorch 2.11 synchronizes no device that it has not asked to do so."""


def device_count() -> int:
    return _ops.device_count()


def current_device() -> int:
    return _ops.current_device()


def index_of(device: torch.device | str | int) -> int:
    """A card's number."""
    device = torch.device("sim", device) if isinstance(device, int) else torch.device(device)
    return current_device() if device.index is None else device.index


def device(device):
    """A context in which `device` is the current one."""
    return torch.accelerator.device_index(index_of(device))


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.bfloat16, torch.float16]


# Random numbers: torch.manual_seed and torch.random.fork_rng go through these.
def _is_in_bad_fork() -> bool:
    return False


def manual_seed_all(seed: int) -> None:
    for card in range(device_count()):
        _ops.manual_seed(card, seed)


def get_rng_state(device="sim") -> torch.Tensor:
    return _ops.random_state(index_of(device))


def set_rng_state(state: torch.Tensor, device="sim") -> None:
    _ops.set_random_state(index_of(device), state)
