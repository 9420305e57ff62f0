"""Chapter 03: what its measurement times, what its figures and its exercises say."""

from itertools import count

import matplotlib.pyplot as plt
import pytest
import torch

from mnist_gpu.chapters import chapter_03 as lab
from mnist_gpu.data import DeviceBatches
from mnist_gpu.measuring.exercises import RIGHT, UNDECIDED, WRONG, judge
from mnist_gpu.measuring.results import Results, Timed
from mnist_gpu.measuring.timing import compare

CPU = torch.device("cpu")
EXERCISES = {e.name: e for e in lab.EXERCISES}


def test_every_pipeline_is_measured_on_the_same_number_of_images():
    found = list(lab.measure_pipelines(CPU, batches=2, rounds=2, workers=(1,)))
    one_by_one = ["dataloader", "dataloader, pinned", "dataloader, 1 workers"]
    assert sorted(m.name for m in found) == sorted([*one_by_one, "memory", "memory, pinned", "device"])
    for m in found:
        assert (m.section, m.device, m.threads) == ("pipelines", "cpu", 1) and m.per_call == {"images": 256}
        assert len(m.seconds) == 2 and min(m.seconds) > 0


def test_an_interrupted_measurement_gives_its_finished_rounds(monkeypatch, mnist):
    made, yielded = [], []

    class Interrupted:
        def __iter__(self):
            assert torch.get_num_threads() == 1
            for batch in made[0]:
                yielded.append(batch)
                if len(yielded) == 5 * (1 + 2) + 3:  # in the third round, after one that was not timed
                    raise KeyboardInterrupt
                yield batch

    def make(kind, **_):
        made.append(DeviceBatches(mnist[0][:1280], mnist[1][:1280]))
        return Interrupted() if kind == "device" else made[-1]

    monkeypatch.setattr(lab, "make_batches", make)
    torch.set_num_threads(2)
    found = []
    with pytest.raises(KeyboardInterrupt):
        for m in lab.measure_pipelines(CPU, batches=5):
            assert torch.get_num_threads() == 2
            found.append(m)
    assert len(found) == 6 and all(len(m.seconds) == 2 and m.per_call == {"images": 640} for m in found)


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
    assert "ToTensor 20, collate 30" in says and "50% of the 100 µs" in says and "collate is largest" in says
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([20, 30])

    axes, _ = lab.digits(torch.rand(12, 28, 28), torch.arange(12))
    assert [a.get_title() for a in axes.figure.axes[:12]] == [str(i) for i in range(12)]
    plt.close("all")


def test_where_nothing_is_pinned_that_is_said_and_a_difference_is_no_gain():
    same, apart = (compare({"a": [1.0] * 10, "b": [b] * 10}, "a", "b") for b in (1.0, 0.5))
    assert lab.about_pinning(torch.device("cuda"), [apart]) == str(apart)
    assert "mps nothing is pinned" in lab.about_pinning(torch.device("mps"), [same])
    assert len(lab.about_pinning(CPU, [same]).splitlines()) == 2
    assert len(lab.about_pinning(CPU, [same, apart]).splitlines()) == 4


def table(images, labels, index):
    of_bytes = torch.arange(256, device=images.device).div(torch.full((), 127.5, device=images.device)) - 1
    return of_bytes[images[index].int()].unsqueeze(1), labels[index]


@pytest.mark.parametrize(("textbook", "status"), [(0.5, RIGHT), (0.05, UNDECIDED), (0.01, WRONG)])
def test_a_right_table_is_timed_and_nothing_is_claimed_where_nothing_can_be(monkeypatch, textbook, status):
    def alternate(sides, **_):
        for side in sides.values():
            side()
        return {name: [textbook if name == "the textbook" else 1.0] * 10 for name in sides}

    monkeypatch.setattr(lab, "alternate", alternate)
    found = judge(EXERCISES["03.2"], table)
    assert found.status == status, found.text
    assert ("yours is 10.0 times as fast as the textbook" in found.text) == (status == RIGHT)  # 20 of it in a round


def test_with_the_right_number_of_workers_a_simulated_training_waits_no_more_and_with_one_fewer_it_does():
    def waits(load, train, workers):
        end, gaps = 0, []
        for k in range(6 * workers):  # worker k % workers prepares batch k
            begin = max(end, load * (k // workers + 1))
            gaps, end = [*gaps, begin - end], begin + train
        return any(gaps[1:])

    def simulated(load, train):
        return next(workers for workers in count(1) if not waits(load, train, workers))

    assert judge(EXERCISES["03.3"], simulated).status == RIGHT


def test_where_more_workers_are_asked_for_than_are_needed_those_that_are_needed_are_drawn(monkeypatch):
    found = judge(EXERCISES["03.3"], lambda load, train: 9)
    monkeypatch.setattr(plt, "show", lambda: None)
    found.draw()
    assert [row.get_text() for row in plt.gca().get_yticklabels()] == ["training", "worker 1", "worker 2", "worker 3"]
    plt.close("all")
