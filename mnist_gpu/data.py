"""MNIST, and the three pipelines that turn it into batches: the textbook's, tensors in memory, bytes on the device.

A pipeline is an iterable; one pass over it is one epoch. It yields `(images, labels)`: images `[B, 1, 28, 28]` float32,
normalized to -1..1, labels `[B]` int64, both on the model's device; `len()` is the number of batches in a pass.
With the same seed all three yield the same images in the same order.
"""

import gzip
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from mnist_gpu.checks import at_least_one

TRAIN_IMAGES = 60_000
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"  # the one that torchvision.datasets.MNIST tries first
CHECKSUMS = {  # SHA-256
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def data_root() -> Path:
    """The folder that holds MNIST/raw: what the variable MNIST_GPU_DATA names, else data/ beside this package."""
    return Path(os.environ.get("MNIST_GPU_DATA") or Path(__file__).resolve().parent.parent / "data")


def _read_archive(name: str) -> bytearray:
    """The content of one archive, its checksum verified; fetched first if it is not there.

    Unpacked in memory: where many processes start at once, one could read what another has half unpacked to disk.
    """
    raw = data_root() / "MNIST" / "raw"
    if not (raw / name).exists():
        try:
            raw.mkdir(parents=True, exist_ok=True)
            # It checks the sum, and gives the file its name when it is whole.
            torch.hub.download_url_to_file(MIRROR + name, str(raw / name), CHECKSUMS[name], progress=False)
        except Exception as error:  # a folder that cannot be written, and whatever a network may do
            raise FileNotFoundError(
                f"{name} is not in {raw}, and it could not be downloaded ({error}). Restore the folder from the "
                "repository (`git checkout -- data`), or set MNIST_GPU_DATA to a folder that holds MNIST/raw/*.gz."
            ) from error
    packed = (raw / name).read_bytes()
    if (found := hashlib.sha256(packed).hexdigest()) != CHECKSUMS[name]:
        raise ValueError(
            f"{raw / name} is not the original archive: its SHA-256 sum is {found}, but should be {CHECKSUMS[name]}. "
            f"Delete the file and restore it: `git checkout {name}` in its folder, or run again with a network."
        )
    return bytearray(gzip.decompress(packed))  # a bytearray, since torch.frombuffer wants memory it may write to


def load_mnist(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST's training or test set: images `[N, 28, 28]` uint8, 0 (background) to 255, and labels `[N]` int64.

    Raises FileNotFoundError if an archive is missing and cannot be downloaded, ValueError if one is not the original.
    """
    prefix = "train" if train else "t10k"
    # IDX format: a header of 16 bytes before the images (magic number, N, rows, columns), of 8 before the labels.
    images = torch.frombuffer(_read_archive(f"{prefix}-images-idx3-ubyte.gz"), dtype=torch.uint8, offset=16)
    labels = torch.frombuffer(_read_archive(f"{prefix}-labels-idx1-ubyte.gz"), dtype=torch.uint8, offset=8)
    return images.view(-1, 28, 28), labels.long()


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 `[B, 28, 28]` to float32 `[B, 1, 28, 28]`, -1..1: ToTensor and Normalize((0.5,), (0.5,)), bit for bit."""
    # The divisor is a tensor: CUDA turns division by a Python number into a product, which rounds differently.
    return images.unsqueeze(1).div(torch.full((), 127.5, device=images.device)).sub_(1)


class Order:
    """In which order the images come: a fresh permutation a pass, cut into batches of indices; a DataLoader's sampler.

    Drawn on the CPU by a generator of its own, it is the same on every device; a `seed` of None keeps the stored order.
    `part` is (rank, processes): this rank's part of every batch. A small last batch may leave a rank without images.
    """

    def __init__(self, n: int, batch_size: int = 128, seed: int | None = 0, part: tuple[int, int] = (0, 1)):
        at_least_one(n=n, batch_size=batch_size)
        self.n, self.batch_size, self.part = n, batch_size, part
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return math.ceil(self.n / self.batch_size)

    def draw(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, ...]:
        """The index batches of one pass, int64 `[B]` each, on `device` (copied there once per pass, not per batch)."""
        order = torch.arange(self.n) if self.generator is None else torch.randperm(self.n, generator=self.generator)
        batches, (rank, processes) = order.to(device).split(self.batch_size), self.part
        return batches if processes == 1 else tuple(batch.tensor_split(processes)[rank] for batch in batches)

    def __iter__(self) -> Iterator[list[int]]:
        # Draws when the first batch is asked for, not before: a DataLoader with workers calls iter() twice per pass.
        for batch in self.draw():
            yield batch.tolist()


class Batches:
    """What all pipelines share: the images and labels, as load_mnist returns them, their Order, and their device.

    With `pin_memory` batches are copied to page-locked memory first, from where a CUDA or XPU device can fetch them
    while the program goes on.
    """

    def __init__(self, images, labels, batch_size=128, seed=0, device="cpu", *, part=(0, 1), pin_memory=False):
        if images.dtype != torch.uint8 or images.shape[1:] != (28, 28):
            raise ValueError(f"images are {images.dtype} {list(images.shape)}, but must be torch.uint8 [N, 28, 28]")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(f"labels are {labels.dtype} {list(labels.shape)}, but must be torch.int64 [{len(images)}]")
        self.images, self.labels, self.device = images, labels, torch.device(device)
        self.order = Order(len(images), batch_size, seed, part)
        self.pin_memory = pin_memory and self.device.type in ("cuda", "xpu")

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self):
        for index in self.order.draw(self.images.device):
            yield self.batch(index)


def textbook_dataset(images: torch.Tensor, labels: torch.Tensor, transform: Callable | None = None):
    """torchvision.datasets.MNIST over these images and labels, without its constructor, which unpacks to disk."""
    from torchvision.datasets import MNIST, VisionDataset  # here: it costs a second, which only this data set needs

    dataset = MNIST.__new__(MNIST)
    VisionDataset.__init__(dataset, transform=transform)
    dataset.data, dataset.targets, dataset.train = images, labels, True
    return dataset


def collate(samples: list) -> tuple[torch.Tensor, torch.Tensor]:
    """DataLoader's usual batch of (image, label) samples; it has none for no samples, which a rank may be left with."""
    if not samples:
        return torch.empty(0, 1, 28, 28), torch.empty(0, dtype=torch.int64)
    return torch.utils.data.default_collate(samples)


class DataLoaderBatches(Batches):
    """The textbook's: ToTensor and Normalize an image at a time, a DataLoader with so many processes as `workers`."""

    def __init__(self, *data, workers: int = 0, **options):
        from torchvision.transforms import Compose, Normalize, ToTensor

        super().__init__(*data, **options)
        self.loader = torch.utils.data.DataLoader(
            textbook_dataset(self.images, self.labels, Compose([ToTensor(), Normalize((0.5,), (0.5,))])),
            batch_sampler=self.order,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=self.pin_memory,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # or every pass would draw a number from PyTorch's global generator
        )

    def __iter__(self):
        for batch in self.loader:
            yield tuple(tensor.to(self.device, non_blocking=self.pin_memory) for tensor in batch)


class MemoryBatches(Batches):
    """All images normalized once and kept as float32 in host memory (188 MB); a batch is an indexing and a copy."""

    def __init__(self, *data, **options):
        super().__init__(*data, **options)
        self.images = normalize(self.images)

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        batch = []
        for tensor in (self.images, self.labels):
            # A fresh pinned buffer per batch: PyTorch caches them, and gives none out while a copy still reads from it.
            out = torch.empty(len(index), *tensor.shape[1:], dtype=tensor.dtype, pin_memory=self.pin_memory)
            batch.append(torch.index_select(tensor, 0, index, out=out).to(self.device, non_blocking=self.pin_memory))
        return tuple(batch)


class DeviceBatches(Batches):
    """All images kept as uint8 in the device's memory (47 MB), indexed and normalized there a batch at a time."""

    def __init__(self, *data, **options):
        super().__init__(*data, **options)
        self.images, self.labels = self.images.to(self.device), self.labels.to(self.device)

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The images and labels at `index`, int64 `[B]` on the device."""
        # index_select, not images[index]: on a CPU it gathers bytes three times as fast.
        return normalize(self.images.index_select(0, index)), self.labels.index_select(0, index)


PIPELINES = {"dataloader": DataLoaderBatches, "memory": MemoryBatches, "device": DeviceBatches}


def make_batches(kind, train=True, batch_size=128, seed=0, device="cpu", **options):
    """The pipeline called `kind`, one of PIPELINES, over MNIST's training or test set; `options` are its own."""
    if kind not in PIPELINES:
        raise ValueError(f"batches is {kind!r}, but must be one of: {', '.join(PIPELINES)}")
    return PIPELINES[kind](*load_mnist(train), batch_size, seed, device, **options)
