"""MNIST, and the three pipelines that turn it into batches: the textbook's, tensors in memory, bytes on the device.

A pipeline is an iterable; one pass over it is one epoch. It yields `(images, labels)`: images `[B, 1, 28, 28]` float32,
normalized to -1..1, labels `[B]` int64, both on the model's device; `len()` is the number of batches in a pass.
With the same seed all three yield the same images in the same order. A new pipeline is a class of Batches
with an `__iter__` of its own, and a line in PIPELINES.
"""

import contextlib
import gzip
import hashlib
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import torch

from mnist_gpu.checks import at_least_one, valid_seed

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


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 images `[B, 28, 28]`, 0..255, as the network wants them: `[B, 1, 28, 28]` float32, -1..1.

    The same bits as ToTensor() and Normalize((0.5,), (0.5,)), which compute (x / 255 - 0.5) / 0.5: scaling by a power
    of two is exact, so x / 127.5 - 1 rounds alike, in two operations instead of four. The divisor is a tensor on the
    images' device because CUDA turns division by a Python number into a product with its reciprocal, which rounds
    differently.
    """
    return images.unsqueeze(1).div(torch.full((), 127.5, device=images.device)).sub_(1)


class Order:
    """In which order the images come: a fresh permutation a pass, cut into batches of indices.

    The permutation is drawn on the CPU from a generator of its own, so the order is the same on every device, and
    nothing else that draws random numbers changes it. As a batch sampler: `DataLoader(dataset, batch_sampler=order)`.

    Args:
        n: number of images.
        batch_size: images per batch; the last batch of a pass has what is left (96 of MNIST's 60,000 at 128).
        seed: of the permutations; None keeps the images in their stored order.
        part: (rank, processes): of every batch this rank's part alone, where several processes share the batches. Parts
            differ by at most one image, and a small last batch may leave a rank without any.

    Raises:
        ValueError: n or batch_size below 1; seed beyond 64 bits; rank not below the number of processes.
    """

    def __init__(self, n: int, batch_size: int = 128, seed: int | None = 0, part: tuple[int, int] = (0, 1)):
        at_least_one(n=n, batch_size=batch_size, processes=part[1])
        if not 0 <= part[0] < part[1]:
            raise ValueError(f"part is {part}, but the rank must be from 0 to {part[1] - 1}")
        if seed is not None:
            valid_seed(seed)
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
    """What all pipelines share: the order of the images, and the device that the batches go to.

    Args:
        images, labels: as load_mnist returns them.
        batch_size, seed, part: see Order.
        device: where the batches go.

    Raises:
        ValueError: images or labels of a wrong type, shape or length; batch_size below 1.
    """

    def __init__(self, images, labels, batch_size=128, seed=0, device="cpu", *, part=(0, 1)):
        for name, value in (("images", images), ("labels", labels)):
            if not isinstance(value, torch.Tensor):
                raise ValueError(f"{name} are a {type(value).__name__}, but must be a torch.Tensor")
        if images.dtype != torch.uint8 or images.dim() != 3 or tuple(images.shape[1:]) != (28, 28):
            raise ValueError(f"images are {images.dtype} {list(images.shape)}, but must be torch.uint8 [N, 28, 28]")
        if labels.dtype != torch.int64 or labels.dim() != 1:
            raise ValueError(f"labels are {labels.dtype} {list(labels.shape)}, but must be torch.int64 [N]")
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels: there must be one label per image")
        self.images, self.labels, self.device = images, labels, torch.device(device)
        self.order = Order(len(images), batch_size, seed, part)

    def __len__(self) -> int:
        return len(self.order)


def textbook_dataset(images: torch.Tensor, labels: torch.Tensor, transform: Callable | None = None):
    """torchvision.datasets.MNIST over these images and labels, as load_mnist returns them.

    Its items, the part that costs time, are torchvision's own: a PIL image made from the pixels, then the transform.
    Its constructor alone is passed over, since it unpacks the archives to disk.
    """
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


@contextlib.contextmanager
def _any_number_of_workers() -> Iterator[None]:
    """Without PyTorch's warning of more workers than usable CPUs: what they are worth there is measured."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield


class DataLoaderBatches(Batches):
    """The textbook's pipeline: torchvision's MNIST, ToTensor and Normalize an image at a time, a DataLoader.

    Args:
        workers: processes that prepare batches beside the training; 0 prepares them in the training's own process.
        pin_memory: batches are copied to page-locked memory first, from where a GPU can fetch them while the program
            goes on. Without effect where the device is no CUDA or XPU device: there is no such copy then.

    Raises ValueError also for workers below 0.
    """

    def __init__(self, *data, workers: int = 0, pin_memory: bool = False, **options):
        from torchvision.transforms import Compose, Normalize, ToTensor

        super().__init__(*data, **options)
        if not isinstance(workers, int) or workers < 0:
            raise ValueError(f"workers is {workers!r}, but must be a whole number of at least 0")
        self.pin_memory = pin_memory and self.device.type in ("cuda", "xpu")
        with _any_number_of_workers():
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
        with _any_number_of_workers():
            batches = iter(self.loader)
        for batch in batches:
            yield tuple(tensor.to(self.device, non_blocking=self.pin_memory) for tensor in batch)


class MemoryBatches(Batches):
    """All images normalized once and kept as float32 in host memory (188 MB); a batch is an indexing and a copy.

    `pin_memory` as in DataLoaderBatches.
    """

    def __init__(self, *data, pin_memory: bool = False, **options):
        super().__init__(*data, **options)
        self.images = normalize(self.images)
        self.pin_memory = pin_memory and self.device.type in ("cuda", "xpu")

    def __iter__(self):
        for index in self.order.draw():
            yield self._batch(self.images, index), self._batch(self.labels, index)

    def _batch(self, tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        # A fresh pinned buffer per batch: PyTorch caches them, and gives none out while a copy still reads from it.
        out = torch.empty(len(index), *tensor.shape[1:], dtype=tensor.dtype, pin_memory=self.pin_memory)
        torch.index_select(tensor, 0, index, out=out)
        return out.to(self.device, non_blocking=self.pin_memory)


class DeviceBatches(Batches):
    """All images kept as uint8 in the device's memory (47 MB); a batch is indexed and normalized there.

    Nothing but the permutation is copied to the device, once per pass.
    """

    def __init__(self, *data, **options):
        super().__init__(*data, **options)
        self.images, self.labels = self.images.to(self.device), self.labels.to(self.device)

    def __iter__(self):
        for index in self.order.draw(self.device):
            yield self.batch(index)

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The images and labels at `index`, int64 `[B]` on the device."""
        # index_select, not images[index]: on a CPU it gathers bytes three times as fast.
        return normalize(self.images.index_select(0, index)), self.labels.index_select(0, index)


PIPELINES = {"dataloader": DataLoaderBatches, "memory": MemoryBatches, "device": DeviceBatches}


def make_batches(kind, train=True, batch_size=128, seed=0, device="cpu", *, root=None, **options):
    """The pipeline called `kind`, one of PIPELINES, over MNIST's training or test set.

    `root` is as for load_mnist; `options` are the pipeline's own: workers, pin_memory, part.

    Raises:
        ValueError: there is no such pipeline; and what the pipeline and load_mnist raise.
    """
    if kind not in PIPELINES:
        raise ValueError(f"batches is {kind!r}, but must be one of: {', '.join(PIPELINES)}")
    return PIPELINES[kind](*load_mnist(train, root), batch_size, seed, device, **options)
