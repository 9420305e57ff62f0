"""Climbing the ladder: no rung is timed before its losses are proved, and one that is refused says why."""

import pytest
import torch

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster import ladder as the_rungs
from mnist_gpu.faster.graphs import WARMUP
from mnist_gpu.faster.ladder import NEEDS, PLAIN, RUNGS, TEXTBOOK, Rung, Training, plain
from mnist_gpu.faster.products import usable_products
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.measuring import climb, timing
from mnist_gpu.measuring.climb import Climb, fastest_rung, measure_ladder
from mnist_gpu.measuring.results import Skipped, Timed
from mnist_gpu.training import Epoch

CPU = torch.device("cpu")
EAGER = [r.name for r in RUNGS if not r.name.startswith("compiled")]


@pytest.fixture(autouse=True)
def few_images(monkeypatch, mnist):
    """Every pipeline has ten batches, and is there at once."""
    few = mnist[0][:1280], mnist[1][:1280]
    monkeypatch.setattr(the_rungs, "make_batches", lambda kind, device, **loading: DeviceBatches(*few, device=device))


@pytest.fixture
def only(monkeypatch):
    """Makes a ladder of the rungs that it is given."""
    return lambda *rungs: monkeypatch.setattr(climb, "rungs", lambda names: list(rungs))


def rung(name, stepping, **options):
    """The plain loop, but for its step: `stepping(step, images, labels)`."""

    def make(device, hidden):
        model, step, batches = plain(device, hidden)
        return Training(model, lambda *batch: stepping(step, *batch), batches)

    return Rung(name, make, None, **options)


def timed(name, seconds, **fields):
    proof = {"largest_loss_difference": 2e-7, "tolerance": 0.02}
    values = [seconds * (1 + i / 1000) for i in range(10)]
    return Timed("ladder", name, "cpu", 1, values, {"hidden": 128}, {"images": 60_000}, proof=proof, **fields)


@pytest.mark.parametrize("device", [CPU, pytest.param("gpu", marks=pytest.mark.gpu)])
def test_every_rung_takes_the_same_steps_with_its_proof_and_so_does_the_floor(device, request):
    device = request.getfixturevalue(device) if device == "gpu" else device
    found = list(measure_ladder(device, names=EAGER, hidden=32, steps=3, rounds=2))
    missing = {r.name: r.missing(device) for r in RUNGS if r.name in EAGER and r.missing(device)}
    assert {s.name: s.reason for s in found if isinstance(s, Skipped)} == missing
    there = [name for name in EAGER if name not in missing]
    measured = [m for m in found if isinstance(m, Timed)]
    assert [m.name for m in measured] == there + [f"products alone, {p}" for p in usable_products(device)]
    for m in measured:
        assert (m.section, m.device, m.threads, len(m.seconds)) == ("ladder", device.type, 1, 2) and min(m.seconds) > 0
        assert (m.per_call, m.parameters) == ({"images": 384, "steps": 3}, {"batch_size": 128, "hidden": 32})
        assert (m.name in there) == bool(m.first_use_seconds) == bool(m.proof)
    assert measured[there.index(PLAIN)].proof == {"largest_loss_difference": 0.0, "tolerance": 0.02}


def test_whole_epochs_are_timed_in_turn_after_a_first_pass_of_each_with_the_threads_asked_for(only, monkeypatch):
    calls, products = [], []
    only(*(rung(n, lambda step, *b, n=n: calls.append((n, torch.get_num_threads())) or step(*b)) for n in "ab"))
    monkeypatch.setattr(climb, "repeat", lambda function, count: products.append(count))
    found = list(measure_ladder(CPU, rounds=3, threads=2))
    assert calls == ([("a", 2)] * 10 + [("b", 2)] * 10) * (1 + 3) and torch.get_num_threads() == 1
    assert all(m.per_call == {"images": 60_000, "steps": 469} for m in found) and set(products) == {469}


def test_the_first_pass_is_timed_apart_and_a_pause_is_no_measurement(only, monkeypatch):
    now, steps, pauses, original = [100.0], [], [], timing.in_turn

    def slow_at_first(step, *batch):
        steps.append(1)
        now[0] += 50.0 if len(steps) == 1 else 1.0
        return step(*batch)

    monkeypatch.setattr(climb.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(climb.time, "sleep", pauses.append)
    monkeypatch.setattr(climb, "in_turn", lambda *a, **options: original(*a, clock=lambda: now[0], **options))
    only(rung("slow at first", slow_at_first))
    (found,) = measure_ladder(CPU, steps=3, rounds=2, floor=False)
    assert found.first_use_seconds == 52.0 and found.seconds == [3.0, 3.0] and len(pauses) == 2


def shifted(step, images, labels):
    return step(images, labels) + 0.1


def broken(step, images, labels):
    raise RuntimeError("\n  no kernel for this\nsecond line")


@pytest.mark.parametrize(("make", "named"), [
    (rung("", shifted).make, ["another training", "more than 0.02", "step 1"]),
    (lambda *sizes: plain(*sizes)._replace(model=plain(*sizes).model), ["trained a copy"]),
    (lambda *sizes: plain(*sizes)._replace(batches=list(plain(*sizes).batches)[:3]), ["of 3 steps instead of 4"]),
    (rung("", lambda step, *batch: step(*batch) * torch.nan).make, ["LossNotFinite"]),
    (rung("", broken).make, ["RuntimeError: no kernel for this"]),
])  # fmt: skip
def test_a_rung_that_is_another_training_is_refused_with_the_cause_and_never_timed(only, make, named):
    steps = []

    def noting(device, hidden):
        model, step, batches = make(device, hidden)
        return Training(model, lambda *batch: steps.append(1) or step(*batch), batches)

    only(Rung("bad", noting, None), Rung("good", plain, None))
    refused, *good = measure_ladder(CPU, steps=4, rounds=2, floor=False)
    assert (refused.section, refused.name, refused.device) == ("ladder", "bad", "cpu")
    assert all(part in refused.reason for part in named) and "second line" not in refused.reason
    assert [m.name for m in good] == ["good"] and len(steps) <= 4


def test_a_rung_may_differ_as_much_as_its_tolerance_and_not_by_what_is_no_number(monkeypatch):
    here = Climb(CPU, steps=3)
    assert here.reach(rung("within", shifted, tolerance=0.101)) is None and list(here.reached) == ["within"]
    assert here.reached["within"][2]["largest_loss_difference"] == pytest.approx(0.1, abs=1e-3)
    assert "another training" in here.reach(rung("beyond", shifted, tolerance=0.099)).reason
    monkeypatch.setattr(climb, "train_part", lambda *a: Epoch(1, [here.expected[0], torch.nan, 1.0], [], 384, 1.0))
    assert "another training" in here.reach(Rung("nan", plain, None, tolerance=9.0)).reason


def test_of_an_epoch_as_one_program_the_same_part_is_trained_and_its_products_are_named(only):
    ran = []

    def make(device, hidden):
        model, step, batches = plain(device, hidden)
        model.hidden.weight.data = model.hidden.weight.data.t().contiguous().t()  # column by column, as it may choose
        epoch = WholeEpoch(batches)
        epoch.run = lambda drawn: ran.append(len(drawn)) or torch.stack([step(*batches.batch(i)) for i in drawn])
        epoch.products = "torch.mm, weights [H, 784]"
        return Training(model, epoch.step, epoch)

    only(Rung("whole", make, None))
    (found,) = measure_ladder(CPU, steps=2, rounds=3, floor=False)
    assert ran == [2] * (1 + 3) and found.proof["products"] == "torch.mm, weights [H, 784]"


def test_on_an_nvidia_gpu_the_floor_is_launched_at_once(monkeypatch, cuda_graphs):
    """Launched one by one, the products would take longer than a whole training that is a graph."""
    x, asked = torch.zeros(()), []
    monkeypatch.setattr(climb, "five_products", lambda _, *what: asked.append(what) or (lambda: x.add_(1)))
    found = climb.floors(torch.device("cuda"), 32, 7)
    (floor,) = found.values()
    assert asked == [(128, 32, torch.device("cuda"))]
    floor()
    assert cuda_graphs.replays == 1 and x == WARMUP + 7 + 7  # recording is a run, too, but on a GPU


def test_a_rung_says_what_its_first_pass_gave_or_why_it_has_none(capsys, monkeypatch):
    graph, unmade = "CUDA graph of a step", lambda *a: pytest.fail("it was made")
    here = Climb(CPU, steps=1)
    assert here.reach(Rung(graph, unmade, None, needs="cuda")) == Skipped("ladder", graph, "cpu", NEEDS["cuda"])
    here.show(PLAIN)
    here.show(graph)  # nothing is said of what other devices have
    here.show("fused optimizer", rung("", broken).make)
    monkeypatch.setattr(the_rungs.shutil, "which", lambda name: None)
    here.show("compiled step")  # what could be installed is named
    plainly, failed, compiler = capsys.readouterr().out.splitlines()
    assert PLAIN in plainly and "first 1 steps" in plainly and plainly.endswith("at most 0")
    assert "no kernel for this" in failed and "C++" in compiler


def test_the_table_has_the_rungs_in_their_order_with_the_gain_that_the_pairs_show(capsys):
    measured = [timed("compiled step", 0.25, first_use_seconds=7.0), timed(TEXTBOOK, 2.0)]
    climb.ladder_table(measured)
    textbook, step = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[2:4])
    assert textbook == "textbook 2.01 2.00 to 2.02 - - 2e-07"
    assert step == "compiled step 0.251 0.250 to 0.252 8.00x 6.7 s 2e-07"
    assert climb.skipped([Skipped("ladder", "oneDNN", "cpu", "not here."), measured[0]]) == measured[:1]
    assert capsys.readouterr().out == "oneDNN: not here.\n"
    times = {PLAIN: [3.0], "bfloat16 autocast": [0.5], "backward written out": [1.6, 1.4, 9.0], "compiled epoch": [1.5]}
    times["WebGPU, a submission an epoch"] = [0.5]
    assert fastest_rung(times) == "compiled epoch" and fastest_rung({}) is None  # in float32, by the median
