"""Chapter 03: what its measurement times, what its figures and its exercises say."""

from unittest.mock import Mock, call

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_gpu.chapters import chapter_03 as lab

CPU = torch.device("cpu")


def test_every_pipeline_is_measured_on_the_same_number_of_images():
    seen = []
    found = list(lab.measure_pipelines(CPU, batches=2, rounds=2, step=lambda *batch: seen.append(batch)))
    names = ["dataloader", "memory", "device", "dataloader, 2 workers"]
    assert [m.name for m in found] == names and len(seen) == 4 * (1 + 2) * 2  # the first round is not timed
    assert all(len(images) == len(labels) == 128 for images, labels in seen)
    for m in found:
        assert (m.section, m.device, m.threads) == ("pipelines", "cpu", 1) and m.per_call == {"images": 256}
        assert len(m.seconds) == 2 and min(m.seconds) > 0


def test_an_interrupt_keeps_the_finished_rounds():
    step, found = Mock(side_effect=[None] * 6 + [KeyboardInterrupt]), []  # in the third round, after one not timed
    with pytest.raises(KeyboardInterrupt):
        found += lab.measure_pipelines(CPU, {"a": [(7, 8)] * 2}, batches=2, step=step)
    assert [len(m.seconds) for m in found] == [2] and step.call_args == call(7, 8)


def test_the_figure_says_what_it_shows():
    axes, says = lab.factors({"none": [6.0] * 10, "two": [2.0] * 10}, {"none": [8.0], "four": [2.0]}, "elsewhere")
    assert all(part in says for part in ("two x 3", "published: elsewhere", "four x 4"))
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx([1, 1, 3, 4])
    plt.close("all")
