"""Saving a training's state to a file, and reading it again."""

import io
from pathlib import Path

import torch
from torch import nn

from mnist_gpu.checks import atomic_write

FORMAT = "mnist_gpu checkpoint 1"


class CheckpointError(ValueError):
    """The file is not a checkpoint that fits."""


def save(path: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer, **extra) -> None:
    """Writes weights, optimizer state and `extra` (numbers, strings, tensors, and lists and dicts of them) to `path`.

    At every moment `path` is the whole old file or the whole new one. Raises OSError where it cannot be written.
    """
    content = {"format": FORMAT, "model": model.state_dict(), "optimizer": optimizer.state_dict(), **extra}
    packed = io.BytesIO()  # on a full disk torch.save would raise its zip writer's error instead of the system's
    torch.save(content, packed)
    with atomic_write(path) as file:
        file.write(packed.getbuffer())


def read(path: str | Path) -> dict:
    """All that was saved, its tensors on the CPU. The file may hold tensors and plain values, and cannot run code.

    Raises FileNotFoundError; CheckpointError if it is cut off, or no checkpoint of this package.
    """
    with open(path, "rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # almost anything, IndexError and OSError too
            raise CheckpointError(
                f"{path} cannot be read as a checkpoint; it may be cut off or another file"
            ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this package (its format is not {FORMAT!r})")
    return content
