"""An epoch that runs as one program, behind the two seams of the training loop."""

from collections.abc import Iterator

import torch

from mnist_gpu.data import DeviceBatches


class WholeEpoch:
    """Both seams of the loop at once: `train(model, epoch.step, epoch)`, with `batches` as the images and their order.

    A pass runs the whole epoch, also if it is then broken off. It yields indices in place of images and labels. Each
    kind has a `run(drawn)`, which trains on the batches of these indices; it returns their losses, `[len(drawn)]`, in
    memory of their own.
    """

    def __init__(self, batches: DeviceBatches):
        self.batches, self.order = batches, batches.order

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self.first(None)

    def first(self, steps: int | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """A pass that trains on the first `steps` batches of the epoch only; None takes them all."""
        drawn = self.order.draw(self.batches.device)[:steps]
        for index, loss in zip(drawn, self.run(drawn).unbind(), strict=True):
            self.loss = loss
            yield index, index

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of the batch that was yielded last; its update has been made, or is under way."""
        return self.loss
