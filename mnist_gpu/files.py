"""Writing a file so that it is whole at every moment."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write to, which becomes `path` when the block ends well, and is removed when it does not.

    It is a temporary file in the same folder, synced to the disk and then renamed: whatever happens, `path` is the
    whole old file or the whole new one. Raises OSError if the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
