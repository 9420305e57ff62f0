"""What keeps bad input and half-written files out: errors that name the value and what is allowed, atomic writing."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def at_least_one(**values: int) -> None:
    """Raises ValueError unless every value is a whole number of 1 or more: `at_least_one(batch_size=128)`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}, but must be a whole number of at least 1")


def positive(**values: float) -> None:
    """Raises ValueError unless every value is a finite number above 0: `positive(lr=0.01)`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{name} is {value!r}, but must be a number greater than 0")


def writable(path: str | Path | None) -> None:
    """Raises ValueError if `path` cannot be a file to write: found out now rather than after the work."""
    folder = Path(path or ".").resolve().parent
    if path and (Path(path).is_dir() or not os.access(folder, os.W_OK)):
        raise ValueError(f"cannot write {path}: it is a folder, or there is no folder {folder} that you may write to")


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write to, which becomes `path` when the block ends well, and is removed when it does not.

    A temporary file in the same folder, synced and then renamed: `path` is always the whole old file or the whole new
    one. Raises OSError if the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # of a write it names no file
        raise type(error)(error.errno, f"{error.strerror or error}: cannot write {path}") from error
    finally:
        with contextlib.suppress(OSError):  # where nothing can be written, nothing can be removed
            temporary.unlink(missing_ok=True)
