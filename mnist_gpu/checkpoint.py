"""Saving a training's state to a file, and loading it again."""

import io
import warnings
from pathlib import Path

import torch
from torch import nn

from mnist_gpu.checks import atomic_write

FORMAT = "mnist_gpu checkpoint 1"


class CheckpointError(ValueError):
    """The file is not a checkpoint that fits."""


def save(path: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, **extra) -> None:
    """Writes weights, optimizer state and `extra` (numbers, strings, tensors, and lists and dicts of them) to `path`.

    At every moment `path` is the whole old file or the whole new one. Raises OSError if the folder cannot be written
    or the disk is full.
    """
    content = {
        "format": FORMAT,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict() if optimizer else None,
        **extra,
    }
    packed = io.BytesIO()  # on a full disk torch.save would raise its zip writer's error instead of the system's
    torch.save(content, packed)
    with atomic_write(path) as file:
        file.write(packed.getbuffer())


def load(path: str | Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict:
    """Puts the saved weights into `model` and the saved state into `optimizer`, and returns all that was saved.

    Raises what `read` and `restore` raise; the model is changed only if everything fits.
    """
    content = read(path)
    restore(content, model, optimizer, path)
    return content


def read(path: str | Path) -> dict:
    """All that was saved, its tensors on the CPU.

    `weights_only=True`: a file can hold tensors and plain values, but cannot run code.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is truncated, or no checkpoint of this package.
    """
    with open(path, "rb") as file, warnings.catch_warnings(action="ignore"):  # of a foreign file's pickle protocol
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # almost anything, IndexError and OSError too
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"{path} cannot be read as a checkpoint; it may be cut off or another file: {first}"
            ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this package (its format is not {FORMAT!r})")
    return content


def restore(content: dict, model: nn.Module, optimizer: torch.optim.Optimizer | None, path: str | Path) -> None:
    """Puts what was read from `path` into model and optimizer, on their device; the model only if everything fits.

    Raises CheckpointError if it is of another model, of another optimizer, or of none.
    """
    ours = {k: list(v.shape) for k, v in model.state_dict().items()}
    theirs = {k: list(v.shape) for k, v in content["model"].items()}
    if ours != theirs:
        raise CheckpointError(f"{path} is of another model: it holds {theirs}, but this model has {ours}")
    if optimizer is not None and content["optimizer"] is None:
        raise CheckpointError(f"{path} was saved without an optimizer's state, so training cannot go on from it")
    if optimizer is not None:  # first, since it can still refuse
        try:
            optimizer.load_state_dict(content["optimizer"])
        except ValueError as error:
            raise CheckpointError(f"{path} was saved with another optimizer: {error}") from error
    model.load_state_dict(content["model"])
