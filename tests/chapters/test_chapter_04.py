"""Chapter 04: what its figure draws and says, and which reads of values its watch sees."""

import pytest
import torch
import torch.nn.functional as F

from mnist_gpu.chapters import chapter_04 as lab
from mnist_gpu.device import pick_device
from mnist_gpu.training import Epoch, Evaluation


def test_curves_are_of_every_batch_and_of_the_validation_after_every_epoch():
    history = [Epoch(1, [2.0, 1.0], [], 4, 1.0), Epoch(2, [0.5, 0.25], [], 4, 1.0)]
    axis, says = lab.curves(history, [Evaluation(0.9, 0.5), Evaluation(0.4, 0.75)])
    batches, losses = axis.lines
    assert list(batches.get_xdata()) == [0.5, 1, 1.5, 2] and list(batches.get_ydata()) == [2, 1, 0.5, 0.25]
    assert list(losses.get_xdata()) == [1, 2] and list(losses.get_ydata()) == [0.9, 0.4]
    assert "0.900" in says and "50.0%" in says and "0.400" in says and "75.0%" in says


READS = [
    lambda x: x.item(), float, int, bool, str, "{:.3f}".format, lambda x: max(x, 0.5), lambda x: range(x.long()),
    lambda x: x.tolist(), lambda x: x.cpu(), lambda x: x.to("cpu"), lambda x: x.to(device="cpu", non_blocking=True),
]  # fmt: skip


@pytest.mark.parametrize("read", READS)
def test_a_read_is_seen_in_other_steps_than_every_hundredth(read):
    logits, labels = torch.zeros(2, 3, device=pick_device()), torch.zeros(2, dtype=torch.int64, device=pick_device())
    for step, seen in ((1, True), (99, True), (100, False), (101, True), (150, False)):  # 150 is the last
        with lab.Watch(150) as watch:
            for _ in range(step):
                loss = F.cross_entropy(logits, labels)
            assert torch.stack([loss]).mean().to(loss.device) is not None and not watch.reads
            read(loss)
        assert bool(watch.reads) == seen, step
