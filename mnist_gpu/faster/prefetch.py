"""Batches that travel to the GPU while it trains on the one before."""

from collections.abc import Iterable, Iterator

import torch


class Prefetched:
    """The batches of a pipeline with pinned memory, each made and copied one batch ahead, on a stream of its own.

    A stream is a queue of work for a GPU; two can run at the same time. Only the copy overlaps a step that waits, not
    what the host does for a batch.
    """

    def __init__(self, batches: Iterable, device: torch.device | str):
        self.batches, self.device = batches, torch.device(device)
        self.side = torch.Stream(self.device)  # one for all passes: PyTorch keeps memory aside for every stream

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        source = iter(self.batches)

        def fetch():
            with self.side:
                return next(source, None), self.side.record_event()

        ahead = fetch()
        while ahead[0] is not None:
            (batch, copied), ahead = ahead, fetch()
            training = torch.accelerator.current_stream(self.device)
            training.wait_event(copied)
            for tensor in batch:
                tensor.record_stream(training)  # or its memory could be given out again before the step has read it
            yield batch
