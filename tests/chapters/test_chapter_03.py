"""Chapter 03: what its measurement times, what its figures and its exercises say."""

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_gpu.chapters import chapter_03 as lab
from mnist_gpu.data import make_batches

CPU = torch.device("cpu")


def test_every_pipeline_is_measured_on_the_same_number_of_images():
    seen, sides = [], {kind: make_batches(kind) for kind in ("dataloader", "memory", "device")}
    found = lab.measure_pipelines(CPU, sides, batches=2, step=lambda *batch: seen.append(batch))
    assert [m.name for m in found] == list(sides) and len(seen) == 3 * (1 + 10) * 2  # the first round is not timed
    assert all(len(images) == len(labels) == 128 for images, labels in seen)
    for m in found:
        assert (m.section, m.device, m.threads) == ("pipelines", "cpu", 1) and m.per_call == {"images": 256}
        assert len(m.seconds) == 10 and min(m.seconds) > 0


def test_the_figure_says_what_it_shows():
    axes, says = lab.factors({"none": [6.0] * 10, "two": [2.0] * 10}, {"none": [8.0], "four": [2.0]}, "elsewhere")
    assert all(part in says for part in ("two x 3", "published: elsewhere", "four x 4"))
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx([1, 1, 3, 4])
    plt.close("all")
