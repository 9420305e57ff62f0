"""MNIST itself: its four archives, checked, read, and fetched if they are missing."""

import gzip
import hashlib
import os
import tempfile
from http.client import HTTPException
from pathlib import Path

import torch

TRAIN_IMAGES = 60_000
# The archives' MD5 sums, the same that torchvision.datasets.MNIST checks.
CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


def data_root(root: str | Path | None = None) -> Path:
    """The folder that holds MNIST/raw: `root`, else the variable MNIST_GPU_DATA, else data/ beside this package."""
    return Path(root or os.environ.get("MNIST_GPU_DATA") or Path(__file__).resolve().parent.parent / "data")


def _read_archive(raw: Path, name: str) -> bytearray:
    """The unpacked content of one archive, its checksum verified; fetched first if it is not there.

    Archives are unpacked in memory: torchvision unpacks them in place, and of many processes started at once on a
    fresh folder one can then read a half-written file.
    """
    path = raw / name
    if not path.exists():
        _fetch(raw, name)
    packed = path.read_bytes()
    found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    if found != CHECKSUMS[name]:
        raise ValueError(
            f"{path} is not the original archive: its MD5 sum is {found}, but should be {CHECKSUMS[name]}. "
            f"Delete the file and restore it: `git checkout {name}` in its folder, or run again with a network."
        )
    return bytearray(gzip.decompress(packed))  # a bytearray, since torch.frombuffer wants memory it may write to


def _fetch(raw: Path, name: str) -> None:
    from torchvision.datasets import MNIST
    from torchvision.datasets.utils import download_url

    errors = []
    try:
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=raw) as folder:  # renamed when whole, so that nobody reads half a file
            for mirror in MNIST.mirrors:
                try:
                    download_url(mirror + name, folder, name, md5=CHECKSUMS[name])
                    os.replace(Path(folder) / name, raw / name)
                    return
                except (OSError, RuntimeError, HTTPException) as error:  # a wrong sum is a RuntimeError
                    errors.append(f"{mirror}: {error}")
    except OSError as error:  # the folder cannot be written
        errors.append(str(error))
    raise FileNotFoundError(
        f"{name} is not in {raw}, and it could not be downloaded ({'; '.join(errors)}). Restore the folder "
        f"from the repository (`git checkout -- data`), or set MNIST_GPU_DATA to a folder that holds MNIST/raw/*.gz."
    )


def load_mnist(train: bool, root: str | Path | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST's training set (N = 60,000) or test set (N = 10,000).

    Returns:
        images `[N, 28, 28]` uint8, 0 (background) to 255, and labels `[N]` int64, 0 to 9.

    Raises:
        FileNotFoundError: an archive is missing and cannot be downloaded.
        ValueError: an archive is not the original one.
    """
    raw = data_root(root) / "MNIST" / "raw"
    prefix = "train" if train else "t10k"
    # IDX format: a header of 16 bytes before the images (magic number, N, rows, columns), of 8 before the labels.
    images = torch.frombuffer(_read_archive(raw, f"{prefix}-images-idx3-ubyte.gz"), dtype=torch.uint8, offset=16)
    labels = torch.frombuffer(_read_archive(raw, f"{prefix}-labels-idx1-ubyte.gz"), dtype=torch.uint8, offset=8)
    return images.view(-1, 28, 28), labels.long()
