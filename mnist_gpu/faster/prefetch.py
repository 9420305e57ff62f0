"""Batches that are made, and travel to the GPU, while it trains on the one before."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch


class Prefetched:
    """The batches of a pipeline with pinned memory, made one ahead by a thread, and copied on a stream of its own."""

    def __init__(self, batches: Iterable, device: torch.device | str):
        self.batches, self.device = batches, torch.device(device)
        self.side = torch.Stream(self.device)  # one for all passes: PyTorch keeps memory aside for every stream

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        source, training = iter(self.batches), torch.accelerator.current_stream(self.device)

        def fetch():
            with self.side:  # of this thread only
                return next(source, None), self.side.record_event()

        with ThreadPoolExecutor(1) as thread:  # it goes on while a step waits for its loss
            ahead = thread.submit(fetch)
            while (found := ahead.result())[0] is not None:
                (batch, copied), ahead = found, thread.submit(fetch)
                training.wait_event(copied)
                for tensor in batch:
                    tensor.record_stream(training)  # or its memory could be given out again before the step has read it
                yield batch
