"""torchvision's MNIST data set, as the textbook pipeline uses it.

A module of its own, because a DataLoader's workers must be able to import the class by name, and because importing
torchvision costs a second that only this pipeline needs.
"""

import torch
from torch.utils.data import default_collate
from torchvision import datasets

from mnist_gpu.data import load_mnist


class MNIST(datasets.MNIST):
    """torchvision.datasets.MNIST, except that it reads the archives through load_mnist and unpacks nothing to disk.

    Its items, the part that costs time, are torchvision's own: a PIL image made from the pixels, then the transforms.
    """

    def _check_legacy_exist(self) -> bool:
        return False

    def _check_exists(self) -> bool:
        return True

    def _load_data(self):
        return load_mnist(self.train, self.root)


def collate(samples):
    """DataLoader's usual batch of (image, label) samples; it has none for no samples, which a rank may be left with."""
    if not samples:
        return torch.empty(0, 1, 28, 28), torch.empty(0, dtype=torch.int64)
    return default_collate(samples)
