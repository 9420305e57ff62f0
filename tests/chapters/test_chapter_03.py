"""Chapter 03: what its measurement times, what its figures and its exercises say."""

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_gpu.chapters import chapter_03 as lab

CPU = torch.device("cpu")


def test_every_pipeline_is_measured_on_the_same_number_of_images():
    found = list(lab.measure_pipelines(CPU, batches=2, rounds=2))
    names = ["dataloader", "memory", "device", "dataloader, 2 workers"]
    assert [m.name for m in found] == names
    for m in found:
        assert (m.section, m.device, m.threads) == ("pipelines", "cpu", 1) and m.per_call == {"images": 256}
        assert len(m.seconds) == 2 and min(m.seconds) > 0


def test_every_batch_goes_to_the_step_and_an_interrupt_gives_the_finished_rounds():
    threads, seen, found = [], [], []

    class Interrupted:
        def __iter__(self):
            threads.append(torch.get_num_threads())
            if len(threads) == 1 + 3:  # in the third round, after one that was not timed
                raise KeyboardInterrupt
            return iter([(i, i) for i in range(5)])

    torch.set_num_threads(2)
    sides = {"quick": [(7, 8)] * 5, "device": Interrupted()}
    with pytest.raises(KeyboardInterrupt):
        for m in lab.measure_pipelines(CPU, sides, batches=5, step=lambda *batch: seen.append(batch)):
            assert torch.get_num_threads() == 2
            found.append(m)
    assert threads == [1] * 4 and seen[:10] == [(7, 8)] * 5 + [(i, i) for i in range(5)]
    assert [m.name for m in found] == list(sides)
    assert all(len(m.seconds) == 2 and m.per_call == {"images": 640} for m in found)


def test_the_figure_says_what_it_shows():
    axes, says = lab.factors({"none": [6.0] * 10, "two": [2.0] * 10}, {"none": [8.0], "four": [2.0]}, "elsewhere")
    assert all(part in says for part in ("two x 3", "published: elsewhere", "four x 4"))
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx([1, 1, 3, 4])
    plt.close("all")
