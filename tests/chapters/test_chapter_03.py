"""Chapter 03: what its measurement times, what its figures and its exercises say."""

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_gpu.chapters import chapter_03 as lab
from mnist_gpu.measuring.exercises import RIGHT, judge
from mnist_gpu.measuring.results import Results, Timed

CPU = torch.device("cpu")
EXERCISES = {e.name: e for e in lab.EXERCISES}


def test_every_pipeline_is_measured_on_the_same_number_of_images():
    found = list(lab.measure_pipelines(CPU, batches=2, rounds=2, workers=(1,)))
    one_by_one = ["dataloader", "dataloader, pinned", "dataloader, 1 workers"]
    assert sorted(m.name for m in found) == sorted([*one_by_one, "memory", "memory, pinned", "device"])
    for m in found:
        assert (m.section, m.device, m.threads) == ("pipelines", "cpu", 1) and m.per_call == {"images": 256}
        assert len(m.seconds) == 2 and min(m.seconds) > 0


def test_an_interrupted_measurement_gives_its_finished_rounds(monkeypatch):
    passes = []

    class Interrupted:
        def __iter__(self):
            passes.append(torch.get_num_threads())
            if len(passes) == 1 + 3:  # in the third round, after one that was not timed
                raise KeyboardInterrupt
            return iter(range(5))

    monkeypatch.setattr(lab, "make_batches", lambda kind, **_: Interrupted() if kind == "device" else range(5))
    torch.set_num_threads(2)
    found = []
    with pytest.raises(KeyboardInterrupt):
        for m in lab.measure_pipelines(CPU, batches=5):
            assert torch.get_num_threads() == 2
            found.append(m)
    assert passes == [1] * 4 and len(found) == 6
    assert all(len(m.seconds) == 2 and m.per_call == {"images": 640} for m in found)


def timed(on="cpu", **seconds):
    per_call = {"images": 9}
    return [Timed("pipelines", n.replace("_", ", "), on, 1, [s] * 10, {}, per_call) for n, s in seconds.items()]


def test_pipelines_are_compared_with_the_dataloader_and_pinned_ones_with_themselves():
    found = timed(dataloader=6.0, memory=1.0, memory_pinned=1.0, dataloader_pinned=6.0)
    first, second, third = lab.SECTION.summary(Results({}, found, "2026-01-31"), "cpu")
    assert "memory is 6.00 times as fast as dataloader" in first
    assert "between memory and memory, pinned" in second and "between dataloader and dataloader, pinned" in third


def test_figures_say_what_they_show(monkeypatch):
    mine = Results({"cpu_name": "here"}, timed(memory=0.25, dataloader=9.0), "2026-01-31")
    there = Results({"device_name": "H100", "cpu_name": "?"}, timed("cuda", memory=0.01, dataloader=4.5), "2026-01-30")
    monkeypatch.setattr(lab, "recorded", lambda unlike: [there])
    axes, says = lab.rates(CPU, mine)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["dataloader", "memory"]
    own, recorded = says.splitlines()
    assert "here" in own and "dataloader 1 images/s, memory 36" in own
    assert "H100" in recorded and "recorded 2026-01-30" in recorded and "memory 900" in recorded

    axes, says = lab.one_image({"ToTensor": 2e-5, "collate": 3e-5}, 1e-4)
    assert "ToTensor 20, collate 30" in says and "100 μs" in says and "collate takes most" in says
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([20, 30])
    plt.close("all")


def table(images, labels, index):
    of_bytes = torch.arange(256, device=images.device).div(torch.full((), 127.5, device=images.device)) - 1
    return of_bytes[images[index].int()].unsqueeze(1), labels[index]


def test_a_right_table_is_timed_beside_normalize(monkeypatch):
    monkeypatch.setattr(lab, "alternate", lambda sides, **_: {"yours": [1.0] * 10, "normalize": [2.0] * 10})
    found = judge(EXERCISES["03.2"], table)
    assert found.status == RIGHT and "yours is 2.00 times as fast as normalize" in found.text
