"""Chapter 02's room: the two ceilings under which it puts a step."""

from types import SimpleNamespace

import torch

from mnist_gpu.chapters import chapter_02 as lab
from mnist_gpu.model import step_bytes


def test_the_copy_that_a_step_is_put_beside_moves_as_many_bytes_as_the_step(monkeypatch):
    copied = []
    monkeypatch.setattr(lab, "measure", lambda call: copied.append(call) or SimpleNamespace(median=1.0 + len(copied)))
    monkeypatch.setattr(lab, "two_ceilings", lambda device: (1e9, 1e9))
    assert lab.measured(torch.device("cpu")) == (1e9, step_bytes() / 2, 3.0)
    assert abs(2 * copied[0].args[0].nbytes - step_bytes()) < 8  # read and written
