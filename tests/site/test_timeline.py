"""The timeline's page: launches and kernels in a queue, with the course's counts and published times."""

import json
import re
import shutil
import sys

import pytest
from moving import PLAY, at, words

from mnist_gpu.measuring.prediction import published

WAYS = ("eager", "compiled", "step", "epoch")
SETTINGS = [
    {"launch": launch, "kernel": kernel, "kernels": kernels, "compiled": 11, "wait": wait}
    for launch, kernel, kernels in ((5.2, 1.3, 17), (1, 4, 3), (2, 2, 5), (20, 0.1, 60), (0.1, 20, 1), (4, 1, 17))
    for wait in (False, True)
]
CASES = [(way, now) for way in WAYS for now in SETTINGS]


@pytest.fixture(scope="module")
def address(serve):
    return f"{serve(PLAY)}/timeline.html"


@pytest.fixture
def page(visit, address):
    return visit(address)


def queue(way, steps, *, launch, kernel, kernels, compiled, wait):
    """The same by hand: [(start of a launch)], [(start of a kernel)], from what each launch brings."""
    step = {"eager": [1] * kernels, "compiled": [1] * compiled, "step": [1, 1, kernels, 1], "epoch": [kernels]}[way]
    host, device, launches, starts = 0.0, 0.0, [], []
    for number in range(steps):
        for brings in step:
            if way != "epoch" or number == 0:
                launches.append(host)
                host += launch
                ready = host
            for _ in range(brings):
                starts.append(max(device, ready))
                device = starts[-1] + kernel
        if wait and way != "epoch":
            host = max(host, device)
    return launches, starts


def test_the_queue_is_that_of_the_recurrence(page):
    every = page.evaluate("cases => cases.map(([way, now]) => simulate(way, now, 6))", CASES)
    for (way, now), found in zip(CASES, every, strict=True):
        launches, starts = queue(way, 6, **now)
        assert [start for _, start, _ in found["launches"]] == pytest.approx(launches, rel=1e-9)
        assert [start for _, start, _ in found["kernels"]] == pytest.approx(starts, rel=1e-9)
        assert all(end - start == pytest.approx(now["kernel"]) for _, start, end in found["kernels"])
        each = len(starts) // 6
        assert [step for step, _, _ in found["kernels"]] == [i // each for i in range(len(starts))]


def test_what_was_worked_out_by_hand(page):
    """Launches of 3 μs: kernels of 1 μs start at 3 and 6; those of 4 μs at 3 and 7, and then nobody waits again."""
    run = "([way, now]) => { const found = simulate(way, now, 2); return [found.launches, found.kernels] }"
    short = {"launch": 3, "kernel": 1, "kernels": 2, "compiled": 1, "wait": False}
    assert page.evaluate(run, ["eager", short]) == [
        [[0, 0, 3], [0, 3, 6], [1, 6, 9], [1, 9, 12]],
        [[0, 3, 4], [0, 6, 7], [1, 9, 10], [1, 12, 13]],
    ]
    assert page.evaluate(run, ["eager", short | {"kernel": 4}])[1] == [[0, 3, 7], [0, 7, 11], [1, 11, 15], [1, 15, 19]]
    assert page.evaluate(run, ["eager", short | {"wait": True}]) == [
        [[0, 0, 3], [0, 3, 6], [1, 7, 10], [1, 10, 13]],  # the second step is launched when the first has ended
        [[0, 3, 4], [0, 6, 7], [1, 10, 11], [1, 13, 14]],
    ]
    assert page.evaluate(run, ["epoch", short]) == [[[0, 0, 3]], [[0, 3, 4], [0, 4, 5], [1, 5, 6], [1, 6, 7]]]


def test_in_the_long_run_a_step_takes_the_longer_of_both_sides(page):
    every = page.evaluate("cases => cases.map(([way, now]) => steady(way, now))", CASES)
    for (way, now), found in zip(CASES, every, strict=True):
        launch, kernel, launches = now["launch"], now["kernel"], found["launches"]
        sides = (0 if way == "epoch" else launches * launch), found["kernels"] * kernel
        if not now["wait"] or way == "epoch":
            assert found["takes"] == pytest.approx(max(sides), rel=1e-9)
            assert (found["idle"] < 1e-9) == (kernel >= found["enough"] - 1e-9)
        else:
            one, two = (queue(way, steps, **now)[1][-1] for steps in (30, 31))
            assert found["takes"] == pytest.approx(two - one, rel=1e-9) and found["takes"] >= max(sides)
            assert found["idle"] > 0 and found["enough"] is None
        assert found["idle"] == pytest.approx(1 - sides[1] / found["takes"], abs=1e-9)


def test_it_begins_with_published_times_and_the_courses_counts(page):
    now, counted = page.evaluate("state()"), json.loads((PLAY.parents[1] / "site/play/counted.json").read_text("utf-8"))
    small, inside = (published(quantity=quantity) for quantity in ("small kernel", "kernel in a graph"))
    assert now["launch"] == pytest.approx(1e6 * max(f.value for f in small))
    assert now["kernel"] == pytest.approx(1e6 * min(f.value for f in inside))
    assert now["kernels"] == counted["one by one"][0] and now["compiled"] == counted["compiled step"]
    links = page.evaluate("['launch', 'kernel'].map(name => $(`${name}-source`).querySelector('a').href)")
    assert links[0] in {f.source[1] for f in small} and links[1] in {f.source[1] for f in inside}


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("g++") or sys.platform == "win32", reason="torch.compile needs a C++ compiler")
def test_a_compiled_step_has_so_many_kernels():
    import torch
    from torch._inductor.utils import run_and_get_code

    from mnist_gpu.data import DeviceBatches
    from mnist_gpu.faster.ladder import compiled_step

    images, labels = torch.zeros(128, 28, 28, dtype=torch.uint8), torch.zeros(128, dtype=torch.int64)
    batch = next(iter(DeviceBatches(images, labels, 128)))
    _, (program,) = run_and_get_code(compiled_step("cpu").step, *batch)
    called = re.findall(r"^\s+(?:extern_kernels\.\w+|cpp_fused\w+)\(", program, flags=re.MULTILINE)
    counted = json.loads((PLAY.parents[1] / "site/play/counted.json").read_text("utf-8"))
    assert len(called) == counted["compiled step"] and sum("extern" in call for call in called) == 5


def test_the_sentence_and_the_table_say_the_same_numbers(page):
    said, table = words(page), page.inner_text("#table")
    # 17 x 5.2, of which 17 x 1.3 is work; 11 x 5.2; (17 + 3) x 1.3; 17 x 1.3
    assert "takes 88.4 μs, and the device is idle for 75 % of it" in said
    assert "Compiled it takes 57.2 μs, as a CUDA graph of a step 26 μs, as a CUDA graph of an epoch 22.1 μs" in said
    assert "stop mattering where a kernel takes 5.2 μs or more" in said
    assert all(time in table for time in ("88.4 μs", "57.2 μs", "26 μs", "22.1 μs", "75 %", "1.04 μs"))
    assert "do not matter" in at(page, launch=4, kernel=4)
    page.get_by_role("checkbox").check()
    assert "waits for the end of every step" in words(page) and "wait=1" in page.url


def test_the_picture_shows_launches_kernels_and_whole_steps(page):
    at(page, launch=5, kernel=1, kernels=4, compiled=2, steps=2)
    drawn = [page.locator(f"#rows .{kind}.fill").count() for kind in ("launches", "operations")]
    # Until 1.02 x 41 μs. Launches begin every 5 μs in three rows (9 each), once in the last; kernels start every 5 μs
    # (8 each); in the step's graph at 5, 10, 15 to 18, 20, 25, 30, 35 to 38, 40; in the epoch's from 5 on every 1 μs.
    assert drawn == [3 * 9 + 1, 8 + 8 + 14 + 37]
    assert "whole steps: 2" in page.inner_html("#rows")
