"""The network, and how much one training step on it computes and moves."""

import torch
import torch.nn.functional as F
from torch import nn

from mnist_gpu.checks import at_least_one
from mnist_gpu.device import free_memory

PIXELS = 28 * 28
CLASSES = 10


class MLP(nn.Module):
    """Flatten 28 x 28, linear 784 -> hidden, ReLU, linear hidden -> 10: images `[B, 1, 28, 28]` to logits `[B, 10]`."""

    def __init__(self, hidden: int = 128):
        super().__init__()
        self.hidden = nn.Linear(PIXELS, hidden)
        self.output = nn.Linear(hidden, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[1:] != (1, 28, 28):
            raise ValueError(f"images are {list(images.shape)}, but must be [B, 1, 28, 28]")
        return self.output(F.relu(self.hidden(images.flatten(1))))


def make_model(hidden: int = 128, seed: int = 0, device: torch.device | str = "cpu") -> MLP:
    """An MLP whose initial weights depend on `seed` alone: they are drawn on the CPU, then moved to `device`.

    PyTorch's global random state is left as it was. Raises MemoryError if the weights need more than is free.
    """
    at_least_one(hidden=hidden)
    if (needed := 4 * parameter_count(hidden)) > (free := free_memory()):  # before the system ends a process for it
        sizes = f"{needed / 1e9:,.1f} GB are needed, but {free / 1e9:,.1f} GB of memory are free"
        raise MemoryError(f"weights of a network of width {hidden}: {sizes}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs' generators, too
        return MLP(hidden).to(device)


def parameter_count(hidden: int = 128) -> int:
    """Weights and biases of both layers: 101,770 for 784-128-10."""
    return (PIXELS + 1) * hidden + (hidden + 1) * CLASSES
