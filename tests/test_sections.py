"""The sections of the benchmark: what each of them measures, and how it is proved."""

import pytest
import torch

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster import compiled_epoch, products
from mnist_gpu.faster import ladder as rungs_of_the_ladder
from mnist_gpu.faster.graphs import WARMUP
from mnist_gpu.faster.ladder import PLAIN, RUNGS, Rung, Training, plain
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.measuring import benchmark, timing, workloads
from mnist_gpu.measuring.memory import LiveBytes
from mnist_gpu.measuring.peers import PEERS, lines_of_code
from mnist_gpu.measuring.results import Skipped, Timed
from mnist_gpu.measuring.sections import account as the_account
from mnist_gpu.measuring.sections import crossover as the_crossover
from mnist_gpu.measuring.sections import ensemble as the_ensemble
from mnist_gpu.measuring.sections import ladder as the_ladder
from mnist_gpu.measuring.sections import peers as the_peers
from mnist_gpu.measuring.sections import pipelines as the_pipelines
from mnist_gpu.measuring.sections.account import between, measure_account
from mnist_gpu.measuring.sections.ceilings import measure_ceilings
from mnist_gpu.measuring.sections.crossover import measure_crossover
from mnist_gpu.measuring.sections.ensemble import measure_ensemble
from mnist_gpu.measuring.sections.ladder import above_the_floor, measure_ladder
from mnist_gpu.measuring.sections.peers import measure_peers
from mnist_gpu.measuring.sections.pipelines import measure_pipelines
from mnist_gpu.measuring.timing import in_turn
from mnist_gpu.measuring.workloads import First, train_part, training_step
from mnist_gpu.model import make_model, step_bytes, step_flops
from mnist_gpu.training import Epoch, make_step

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch):
    monkeypatch.setattr(workloads, "usable_cpus", lambda: 2)


@pytest.fixture
def few_images(monkeypatch, mnist):
    """All pipelines have ten batches, and are there at once."""

    def few(kind, device="cpu", **loading):
        return DeviceBatches(mnist[0][:1280], mnist[1][:1280], device=device)

    for module in (the_pipelines, the_account, the_ensemble, rungs_of_the_ladder):
        monkeypatch.setattr(module, "make_batches", few)


def run(**options):
    """The benchmark's results on the CPU, and what it said."""
    said = []
    return benchmark.benchmark(CPU, say=said.append, **options), said


def assert_timed(found, section):
    assert found
    for m in found:
        assert m.section == section and m.seconds and min(m.seconds) > 0, m


# The sections


def test_between_two_ceilings_no_tensor_is_kept():
    """Half a gigabyte of a copy that is done, while products are measured, decides how many kernels a server holds."""
    alive = []
    with LiveBytes() as live:
        for _ in measure_ceilings(CPU, sizes=(8, 16), mebibytes=(1, 2), seconds=0.001):
            alive.append(live.now)
    assert alive == [0] * len(alive) and live.peak == 2 * 2 * 2**20


def test_ceilings_measure_products_and_copies_with_one_thread_and_all():
    found = list(measure_ceilings(CPU, sizes=(8, 16), mebibytes=(1,), seconds=0.001))
    assert_timed(found, "ceilings")
    assert {m.threads for m in found} == {1, 2} and {m.device for m in found} == {"cpu"}
    for threads in (1, 2):
        ours = [m for m in found if m.threads == threads]
        products = {m.parameters["size"]: m.per_call for m in ours if m.name == "matrix product"}
        assert products == {8: {"flop": 1024}, 16: {"flop": 8192}}
        assert [m.per_call for m in ours if m.name == "copy"] == [{"bytes": 2 * 2**20}]
        assert "launch" in {m.name for m in ours}
    assert not [m for m in found if m.name.startswith("transfer")]  # a CPU has nobody to transfer to


def test_pipelines_measure_every_pipeline_on_the_same_number_of_images():
    found = list(measure_pipelines(CPU, batches=2, rounds=2, workers=(1,)))
    assert_timed(found, "pipelines")
    one_by_one = ["dataloader", "dataloader, pinned", "dataloader, 1 workers"]
    assert sorted(m.name for m in found) == sorted([*one_by_one, "memory", "memory, pinned", "device"])
    assert all(m.per_call == {"images": 256} and len(m.seconds) == 2 and m.threads == 1 for m in found)


def test_crossover_measures_every_batch_size_and_width_in_seconds_of_one_step():
    found = list(measure_crossover(CPU, batch_sizes=(4, 8), widths=(2,), rounds=2, call_seconds=0.001))
    assert_timed(found, "crossover")
    cells = [(m.threads, m.parameters["batch_size"], m.parameters["hidden"]) for m in found]
    assert sorted(cells) == [(1, 4, 2), (1, 8, 2), (2, 4, 2), (2, 8, 2)]
    for m in found:
        size = m.parameters["batch_size"]
        assert m.per_call == {"flop": sum(step_flops(size, 2)), "bytes": step_bytes(size, 2), "images": size}
        assert len(m.seconds) == 2 and m.device == "cpu"


def test_crossover_repeats_a_step_within_a_call_and_divides_by_the_repeats(monkeypatch):
    calls = []
    monkeypatch.setattr(the_crossover, "training_step", lambda *size: lambda: calls.append(torch.get_num_threads()))
    monkeypatch.setattr(the_crossover, "seconds_of", lambda function, device: 0.001)

    def alternate(sides, **options):
        for function in sides.values():
            function()
        return {name: [0.6] for name in sides}

    monkeypatch.setattr(the_crossover, "alternate", alternate)
    found = list(measure_crossover(CPU, batch_sizes=(4,), widths=(2,), call_seconds=0.02))
    assert calls == [1] * 20 + [2] * 20
    assert [m.seconds for m in found] == [pytest.approx([0.03])] * 2


def test_the_training_step_is_on_a_batch_of_the_size_asked_for(monkeypatch):
    seen = []

    def make_step(model, optimizer):
        return lambda images, labels: seen.append((images.shape, labels.shape, model.hidden.out_features))

    monkeypatch.setattr(workloads, "make_step", make_step)
    for batch_size in (3, 60_001):  # more than there are images, too
        training_step(CPU, batch_size, 5)()
        assert seen.pop() == ((batch_size, 1, 28, 28), (batch_size,), 5)


# In turn


class Clock:
    """A clock that stands still except where a side takes its time."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("interrupted", "rounds"), [("a", 2), ("b", 2), ("c", 2)])
def test_an_interrupt_gives_the_rounds_that_every_side_finished_and_goes_on(interrupted, rounds):
    clock, calls, found = Clock(), [], {}

    def side(name, seconds):
        def call():
            calls.append(name)
            clock.now += seconds
            if name == interrupted and calls.count(name) == rounds + 1:
                raise KeyboardInterrupt

        return call

    sides = {name: side(name, i) for i, name in enumerate("abc", start=1)}
    with pytest.raises(KeyboardInterrupt):
        for name, seconds in in_turn(sides, rounds=5, warmup=0, clock=clock):
            found[name] = seconds
    assert found == {"a": [1.0, 1.0], "b": [2.0, 2.0], "c": [3.0, 3.0]}


@pytest.mark.parametrize("warmup", [0, 1])
def test_an_interrupt_before_the_first_round_is_done_gives_nothing(warmup):
    def side():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for found in in_turn({"a": lambda: None, "b": side}, rounds=5, warmup=warmup):
            pytest.fail(f"it gave {found}")


def test_without_an_interrupt_every_round_is_given_and_an_error_is_an_error():
    clock = Clock()
    assert dict(in_turn({"a": lambda: None, "b": lambda: None}, rounds=3, clock=clock)) == {"a": [0] * 3, "b": [0] * 3}
    with pytest.raises(ZeroDivisionError):
        list(in_turn({"a": lambda: 1 / 0}, rounds=3))


# The ladder


def fake_rungs(monkeypatch, *rungs):
    monkeypatch.setattr(the_ladder, "rungs", lambda names: list(rungs))


def counted(name, calls, make=plain, **options):
    """A rung that notes every step in `calls`."""

    def noting(device, hidden):
        model, step, batches = make(device, hidden)
        return Training(model, lambda *batch: calls.append(name) or step(*batch), batches)

    return Rung(name, noting, None, **options)


EAGER = [r.name for r in RUNGS if not r.name.startswith("compiled")]
HERE = [r.name for r in RUNGS if r.name in EAGER and not r.missing(CPU)]
FLOORS = [f"products alone, {p.name}" for p in products.usable_products()]


def test_the_ladder_measures_the_same_steps_on_every_rung_and_the_floor(few_images):
    found = list(measure_ladder(CPU, names=EAGER, steps=3, rounds=2))
    skipped = [m for m in found if isinstance(m, Skipped)]
    assert {s.name: s.reason for s in skipped} == {
        r.name: r.missing(CPU) for r in RUNGS if r.name in EAGER and r.missing(CPU)
    }
    assert {(s.section, s.device) for s in skipped} == {("ladder", "cpu")}
    timed = [m for m in found if isinstance(m, Timed)]
    assert_timed(timed, "ladder")
    assert [m.name for m in timed] == HERE + FLOORS
    for m in timed:
        assert m.per_call == {"images": 384, "steps": 3} and len(m.seconds) == 2
        assert (m.threads, m.parameters, m.device) == (1, {"batch_size": 128, "hidden": 128}, "cpu")
        if m.name in FLOORS:
            assert m.first_use_seconds is None and m.proof == {}
        else:
            assert m.first_use_seconds > 0
            assert 0 <= m.proof["largest_loss_difference"] <= m.proof["tolerance"]


def test_the_ladder_proves_that_the_plain_rung_is_the_plain_loop(few_images):
    (rung, *_) = measure_ladder(CPU, names=[PLAIN], steps=3, rounds=1)
    assert rung.proof == {"largest_loss_difference": 0.0, "tolerance": 0.02}


def test_a_ladder_without_a_number_of_steps_takes_whole_epochs(few_images, monkeypatch):
    calls, products = [], []
    fake_rungs(monkeypatch, counted("rung", calls))
    monkeypatch.setattr(the_ladder, "repeat", lambda function, count: products.append(count))
    found = list(measure_ladder(CPU, rounds=3))
    assert [m.name for m in found] == ["rung", *FLOORS]
    assert all(m.per_call == {"images": 60_000, "steps": 469} for m in found)
    assert len(calls) == 10 * (1 + 3)  # all ten batches: a first pass, and one per round
    assert products == [469] * 3 * len(FLOORS)


def test_the_ladder_takes_its_rungs_in_turn_after_a_first_pass_of_each(few_images, monkeypatch):
    calls = []
    fake_rungs(monkeypatch, counted("a", calls), counted("b", calls))
    list(measure_ladder(CPU, steps=2, rounds=3))
    assert "".join(calls) == "aabb" * (1 + 3)


def test_the_ladder_may_be_of_another_width(few_images):
    made = []
    found = list(measure_ladder(CPU, names=[PLAIN], hidden=32, steps=2, rounds=1))
    assert [m.parameters["hidden"] for m in found] == [32] * (1 + len(FLOORS))
    with pytest.raises(ValueError, match="no rung is called moon"):
        made += measure_ladder(CPU, names=["moon"], steps=2)
    assert made == []


def test_the_first_pass_is_timed_apart_from_the_rounds(few_images, monkeypatch):
    clock = Clock()

    def slow_at_first(device, hidden):
        model, step, batches = plain(device, hidden)
        steps = []

        def stepping(*batch):
            steps.append(1)
            clock.now += 50.0 if len(steps) == 1 else 1.0
            return step(*batch)

        return Training(model, stepping, batches)

    original = timing.alternate
    monkeypatch.setattr(the_ladder.time, "perf_counter", clock)
    monkeypatch.setattr(timing, "alternate", lambda *args, **options: original(*args, clock=clock, **options))
    fake_rungs(monkeypatch, Rung("slow at first", slow_at_first, None))
    (rung, *_) = measure_ladder(CPU, steps=3, rounds=2)
    assert rung.first_use_seconds == 52.0 and rung.seconds == [3.0, 3.0]


def test_a_pause_between_two_rounds_is_no_measurement(few_images, monkeypatch):
    pauses = []
    monkeypatch.setattr(the_ladder.time, "sleep", pauses.append)
    found = list(measure_ladder(CPU, names=[PLAIN], steps=2, rounds=3))
    assert [m.name for m in found] == [PLAIN, *FLOORS] and len(pauses) == 3
    list(measure_ladder(CPU, names=[PLAIN], rounds=1))
    assert len(pauses) == 3  # whole passes leave no workers behind that need one


def too_fast(device, hidden):
    model = make_model(hidden, device=device)
    step = make_step(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    return Training(model, step, rungs_of_the_ladder.make_batches("device", device=device))


def broken(device, hidden):
    raise RuntimeError("\n  no kernel for this\nsecond line")


def broken_without_a_word(device, hidden):
    model, _, batches = plain(device, hidden)

    def step(images, labels):
        raise AssertionError

    return Training(model, step, batches)


def nan_at_the_third_step(device, hidden):
    model, step, batches = plain(device, hidden)
    losses = []

    def stepping(*batch):
        losses.append(step(*batch))
        return losses[-1] * float("nan") if len(losses) == 3 else losses[-1]

    return Training(model, stepping, batches)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (too_fast, "is another training: its losses differ by "),
        (broken, "failed: RuntimeError: no kernel for this"),
        (broken_without_a_word, "failed: AssertionError: "),
        (nan_at_the_third_step, "failed: LossNotFinite: the loss is nan at epoch 1, step 4"),
    ],
)
def test_a_rung_that_is_not_the_same_training_is_skipped_and_never_timed(few_images, monkeypatch, make, reason):
    calls = []

    def noting(device, hidden):
        calls.append("made")
        model, step, batches = make(device, hidden)
        return Training(model, lambda *batch: calls.append("step") or step(*batch), batches)

    fake_rungs(monkeypatch, Rung("bad", noting, None), Rung("good", plain, None))
    skipped, *timed = measure_ladder(CPU, steps=4, rounds=2)
    assert (skipped.section, skipped.name, skipped.device) == ("ladder", "bad", "cpu")
    assert skipped.reason.startswith(reason) and "second line" not in skipped.reason
    assert [m.name for m in timed] == ["good", *FLOORS]
    assert calls.count("made") == 1 and calls.count("step") <= 4


@pytest.mark.parametrize(("make", "wrong"), [(too_fast, True), (nan_at_the_third_step, True), (broken, False)])
def test_wrong_losses_of_compiled_code_are_named_with_what_may_be_the_matter(few_images, monkeypatch, make, wrong):
    fake_rungs(monkeypatch, Rung("bad", make, None, suspect="It may be the cache."))
    skipped, *_ = measure_ladder(CPU, steps=4, rounds=2)
    assert skipped.reason.endswith(". It may be the cache.") == wrong
    assert all("shared between machines" in rung.suspect for rung in RUNGS if "compiled" in rung.name)


def test_a_difference_that_is_no_number_is_not_the_same_training(few_images, monkeypatch):
    losses = iter([[1.0, 2.0], [float("nan"), 2.0]])  # the plain loop's, the rung's
    monkeypatch.setattr(the_ladder, "train_part", lambda *a: Epoch(1, next(losses, None), [], 256, 1.0))
    fake_rungs(monkeypatch, Rung("nan", plain, None))
    skipped, *timed = measure_ladder(CPU, steps=2, rounds=1)
    assert "is another training: its losses differ by nan" in skipped.reason and [m.name for m in timed] == FLOORS


@pytest.mark.parametrize(("factor", "there"), [(0.99, False), (1.01, True)])
def test_a_rung_may_differ_as_much_as_its_tolerance(few_images, monkeypatch, factor, there):
    fake_rungs(monkeypatch, Rung("other", too_fast, None, tolerance=9.0))
    (found, *_) = measure_ladder(CPU, steps=3, rounds=1)
    difference = found.proof["largest_loss_difference"]
    assert difference > 0.05 and found.proof["tolerance"] == 9.0
    fake_rungs(monkeypatch, Rung("other", too_fast, None, tolerance=difference * factor))
    (found, *_) = measure_ladder(CPU, steps=3, rounds=1)
    assert isinstance(found, Timed) is there


def test_a_rung_that_is_missing_is_not_even_made(few_images, monkeypatch):
    unmade = Rung("future", lambda *a: pytest.fail("it was made"), None, lambda device: f"not on a {device.type}")
    fake_rungs(monkeypatch, unmade)
    skipped, *timed = measure_ladder(CPU, steps=2, rounds=1)
    assert skipped == Skipped("ladder", "future", "cpu", "not on a cpu") and [m.name for m in timed] == FLOORS


def test_a_part_of_an_epoch_is_a_part_on_every_rung(few_images, monkeypatch):
    calls = []

    def graph(device, hidden):
        model, step, batches = plain(device, hidden)
        epoch = WholeEpoch(batches)
        epoch.run = lambda drawn: torch.stack([calls.append(1) or step(*batches.batch(index)) for index in drawn])
        return Training(model, epoch.step, epoch)

    fake_rungs(monkeypatch, Rung("CUDA graph of an epoch", graph, None))
    found = [m for m in measure_ladder(CPU, steps=2, rounds=3) if m.name == "CUDA graph of an epoch"]
    assert all(len(calls) == m.per_call["steps"] * (1 + 3) for m in found)  # or it is left out, or says its own steps


def test_an_interrupted_ladder_gives_its_finished_rounds(few_images, monkeypatch):
    calls = []

    def interrupted(device, hidden):
        model, step, batches = plain(device, hidden)

        def stepping(*batch):
            calls.append("b")
            if calls.count("b") == 10 * (1 + 2) + 2:  # amid the third round
                raise KeyboardInterrupt
            return step(*batch)

        return Training(model, stepping, batches)

    unmade = Rung("missing", None, None, lambda device: "is not here")
    fake_rungs(monkeypatch, unmade, counted("a", calls), Rung("b", interrupted, None))
    found, said = run(only=["ladder", "ceilings"], quick=True)
    assert found.skipped == [Skipped("ladder", "missing", "cpu", "is not here")]
    assert [m.name for m in found.measurements] == ["a", "b", *FLOORS]
    assert all(len(m.seconds) == 2 for m in found.measurements)
    assert all(m.proof for m in found.measurements[:2]) and "interrupted" in said[-1]


def test_interrupted_pipelines_give_their_finished_rounds(few_images, monkeypatch):
    few, yielded = the_pipelines.make_batches, []

    class Interrupted:
        def __iter__(self):
            for batch in few("device"):
                yielded.append(batch)
                if len(yielded) == 50 * (1 + 2) + 7:  # after a warm-up and two rounds
                    raise KeyboardInterrupt
                yield batch

    monkeypatch.setattr(
        the_pipelines, "make_batches", lambda kind, **o: Interrupted() if kind == "device" else few(kind)
    )
    found, said = run(only=["pipelines", "ceilings"], quick=True)
    assert len(found.measurements) == 6 and {m.section for m in found.measurements} == {"pipelines"}
    assert all(len(m.seconds) == 2 and m.per_call == {"images": 6400} for m in found.measurements)
    assert "interrupted" in said[-1] and found.skipped == []


def test_a_part_of_a_training_is_as_many_steps_as_asked_for(few_images, capsys):
    training = plain("cpu", 16)
    part = train_part(training, 3)
    assert isinstance(part, Epoch) and len(part.losses) == 3 and part.images == 384
    whole = train_part(training)
    assert len(whole.losses) == 10 and whole.loss < part.loss  # it went on from there
    assert capsys.readouterr().out == ""


# The account of a step


def fake_alternate(seconds, seen):
    """Calls every side once and says that it took `seconds`, in three rounds."""

    def alternate(sides, into, **options):
        for name, function in sides.items():
            seen.append(name)
            function()
        into.update({name: [seconds] * 3 for name in sides})

    return alternate


ACCOUNT = ["whole, textbook", "whole, device", "load, textbook", "load, device"]
ACCOUNT += ["load, textbook, with steps", "load, device, with steps"]
ACCOUNT += ["copy", "step, waiting", "step", "smallest network"]


def test_the_account_names_its_parts_and_gives_the_time_of_one_step(few_images, monkeypatch):
    monkeypatch.setattr(timing, "alternate", fake_alternate(6.0, []))
    found = list(measure_account(CPU, sizes=(3, 200), steps=4))
    assert [m.name for m in found] == [*ACCOUNT, "step of 3", "step of 200"]
    assert all(m.seconds == [1.5] * 3 and m.section == "account" and m.threads == 1 for m in found)
    parameters = {m.name: m.parameters for m in found}
    assert parameters["smallest network"] == {"batch_size": 1, "hidden": 1}
    assert parameters["step of 3"] == {"batch_size": 3, "hidden": 128}
    assert parameters["step of 200"] == {"batch_size": 200, "hidden": 128}
    assert all(parameters[name] == {"batch_size": 128, "hidden": 128} for name in ACCOUNT[:-1])


def test_every_part_of_the_account_is_done_as_often_as_there_are_steps(few_images, monkeypatch):
    done, seen = [], []
    waits, item = [], torch.Tensor.item

    class Batches(list):
        """Endless copies of one batch, each counted."""

        def __init__(self, kind, device):
            super().__init__([(torch.zeros(128, 1, 28, 28), torch.zeros(128, dtype=torch.int64))] * 9)
            self.kind = kind

        def __iter__(self):
            for batch in super().__iter__():
                done.append((seen[-1] if seen else None, f"batch of {self.kind}"))
                yield batch

    def noted_step(model, optimizer):
        step = make_step(model, optimizer)

        def noting(images, labels):
            done.append((seen[-1], f"step of {len(images)}, {model.hidden.out_features}"))
            return step(images, labels)

        return noting

    for module in (the_account, rungs_of_the_ladder):
        monkeypatch.setattr(module, "make_batches", lambda kind, device="cpu": Batches(kind, device))
    for module in (workloads, rungs_of_the_ladder):
        monkeypatch.setattr(module, "make_step", noted_step)
    monkeypatch.setattr(torch.Tensor, "item", lambda self: waits.append(seen[-1]) or item(self))
    monkeypatch.setattr(timing, "alternate", fake_alternate(6.0, seen))
    list(measure_account(CPU, sizes=(3,), steps=4))
    expected = {
        "whole, textbook": {"batch of dataloader": 4, "step of 128, 128": 4},
        "whole, device": {"batch of device": 4, "step of 128, 128": 4},
        "load, textbook": {"batch of dataloader": 4},
        "load, device": {"batch of device": 4},
        "load, textbook, with steps": {"batch of dataloader": 4, "step of 128, 128": 4},
        "load, device, with steps": {"batch of device": 4, "step of 128, 128": 4},
        "copy": {},
        "step, waiting": {"step of 128, 128": 4},
        "step": {"step of 128, 128": 4},
        "smallest network": {"step of 1, 1": 4},
        "step of 3": {"step of 3, 128": 4},
    }
    for part, counts in expected.items():
        assert {what for where, what in done if where == part} == set(counts), part
        assert all(done.count((part, what)) == count for what, count in counts.items()), part
    # Every training waits once more: at the end of its epoch.
    assert {part: waits.count(part) for part in set(waits)} == {
        "whole, textbook": 4 + 1,
        "whole, device": 1,
        "step, waiting": 4,
        "load, textbook, with steps": 4,
    }


def test_a_call_comes_after_every_batch():
    seen = []

    def batches():
        for i in range(3):
            seen.append(i)
            yield i

    between(batches(), lambda: seen.append("call"))
    assert seen == [0, "call", 1, "call", 2, "call"]


def test_the_account_measures(few_images):
    found = list(measure_account(CPU, sizes=(1,), steps=2, rounds=2))
    assert_timed(found, "account")
    assert len(found) == len(ACCOUNT) + 1 and all(len(m.seconds) == 2 for m in found)


# Ensembles


def test_ensembles_are_measured_against_one_network(few_images):
    found = list(measure_ensemble(CPU, counts=(1, 3), steps=2, rounds=2))
    assert_timed(found, "ensemble")
    assert [(m.name, m.parameters, m.per_call) for m in found] == [
        ("plain step", {"networks": 1}, {"images": 256, "steps": 2, "networks": 1}),
        ("at once", {"networks": 1}, {"images": 256, "steps": 2, "networks": 1}),
        ("at once", {"networks": 3}, {"images": 768, "steps": 2, "networks": 3}),
    ]
    assert all(len(m.seconds) == 2 and m.threads == 1 for m in found)


def test_the_networks_of_an_ensemble_are_different(few_images, monkeypatch):
    made, calls = [], []

    def make_ensemble_step(models):
        made.append(models)
        return lambda images, labels: calls.append((len(models), len(images)))

    monkeypatch.setattr(the_ensemble, "make_ensemble_step", make_ensemble_step)
    list(measure_ensemble(CPU, counts=(2, 3), steps=4, rounds=1))
    assert [len(models) for models in made] == [2, 3]
    first, second, third = (model.hidden.weight for model in made[1])
    assert not torch.equal(first, second) and not torch.equal(second, third)
    assert torch.equal(first, make_model().hidden.weight)  # the first is the course's own
    assert calls == [(2, 128)] * 4 + [(3, 128)] * 4 + [(2, 128)] * 4 + [(3, 128)] * 4  # a warm-up and a round


# Peers


class FakePeer:
    """A peer without a process. `losses` has its test loss, or the error it ends with, by name."""

    made, calls, closed, rungs = [], [], [], {}
    losses, interrupt = {}, None

    def __init__(self, name, *rung):
        self.name = name
        self.made.append(name)
        self.rungs[name] = rung

    def __call__(self):
        self.calls.append(self.name)
        if (self.name, self.calls.count(self.name)) == self.interrupt:
            raise KeyboardInterrupt
        loss = self.losses.get(self.name, 0.3)
        if isinstance(loss, Exception):
            raise loss
        return {"seconds": 7.0, "test_loss": loss, "test_accuracy": 0.9}

    def close(self):
        self.closed.append(self.name)


@pytest.fixture
def fake_peers(monkeypatch):
    for name in ("made", "calls", "closed"):
        monkeypatch.setattr(FakePeer, name, [])
    monkeypatch.setattr(FakePeer, "losses", {})
    monkeypatch.setattr(FakePeer, "rungs", {})
    monkeypatch.setattr(FakePeer, "interrupt", None)
    monkeypatch.setattr(the_peers, "Peer", FakePeer)
    monkeypatch.setattr(the_peers, "fastest_on_this_cpu", lambda: "backward written out")
    return FakePeer


def test_peers_take_turns_after_a_first_epoch_of_each(fake_peers):
    names = ["plain loop", "scikit-learn", "skorch"]
    found = list(measure_peers(names=names, rounds=3))
    assert_timed(found, "peers")
    assert fake_peers.calls == names * 4 and [m.name for m in found] == names
    for m in found:
        assert m.per_call == {"images": 60_000} and len(m.seconds) == 3 and m.first_use_seconds == 7.0
        assert (m.device, m.threads, m.parameters) == ("cpu", 1, {"batch_size": 128, "hidden": 128})
        assert m.proof == {"test_loss": 0.3, "test_accuracy": 0.9, "lines_of_code": lines_of_code(m.name)}
    assert sorted(fake_peers.made) == sorted(fake_peers.closed) == sorted(names)


def test_all_peers_are_measured_unless_some_are_named(fake_peers):
    assert [m.name for m in measure_peers(rounds=1)] == list(PEERS) == fake_peers.closed


def test_the_fastest_rung_among_the_peers_is_the_ladders_fastest_here(fake_peers):
    plain_loop, fastest = measure_peers(names=["plain loop", "fastest rung"], rounds=1)
    assert fake_peers.rungs == {"plain loop": (), "fastest rung": ("backward written out",)}
    assert fastest.proof["rung"] == "backward written out" and "rung" not in plain_loop.proof
    assert fastest.proof["lines_of_code"] == lines_of_code("fastest rung", "backward written out")


def test_the_ladders_fastest_rung_is_one_in_float32_that_was_measured(few_images, monkeypatch):
    asked = []

    def measured(device, *, names, steps, rounds, floor):
        asked.append((device, names, floor))
        yield Skipped("ladder", "compiled epoch", "cpu", "no compiler")
        for name, seconds in ((PLAIN, 2.0), ("bfloat16 autocast", 0.5), ("written out, oneDNN", 1.0)):
            yield Timed("ladder", name, "cpu", 1, [seconds] * rounds)

    monkeypatch.setattr(the_peers, "measure_ladder", measured)
    assert the_peers.fastest_on_this_cpu() == "written out, oneDNN"
    ((device, names, floor),) = asked
    assert device == CPU and not floor and names[0] == PLAIN and "compiled epoch" in names
    assert not {"textbook", "two workers", "tensors in memory"} & set(names)  # they take seconds to prepare images


def test_a_peer_that_ends_with_an_error_is_skipped_with_it_and_closed(fake_peers):
    fake_peers.losses = {"skorch": RuntimeError("ModuleNotFoundError: No module named 'skorch'")}
    skipped, *timed = measure_peers(names=["plain loop", "skorch", "fastai"], rounds=2)
    assert skipped == Skipped("peers", "skorch", "cpu", "failed: ModuleNotFoundError: No module named 'skorch'")
    assert [m.name for m in timed] == ["plain loop", "fastai"]
    assert fake_peers.calls.count("skorch") == 1 and fake_peers.closed == ["skorch", "plain loop", "fastai"]


@pytest.mark.parametrize(("loss", "same"), [(0.3 * 1.14, True), (0.3 * 0.86, True), (0.346, False), (0.254, False)])
def test_a_peer_whose_test_loss_is_another_is_no_peer(fake_peers, loss, same):
    fake_peers.losses = {"skorch": loss}
    found = {m.name: m for m in measure_peers(names=["plain loop", "skorch"], rounds=1)}
    assert isinstance(found["skorch"], Timed) is same
    if not same:
        expected = f"failed: another training: its test loss is {loss:.3f}, not about 0.300"
        assert found["skorch"].reason == expected and fake_peers.closed == ["skorch", "plain loop"]


def test_a_test_loss_that_is_no_number_is_another_training(fake_peers):
    fake_peers.losses = {"skorch": float("nan")}
    skipped, _ = measure_peers(names=["plain loop", "skorch"], rounds=1)
    assert "its test loss is nan" in skipped.reason


def test_nobody_is_a_peer_of_a_training_that_failed(fake_peers):
    fake_peers.losses = {"plain loop": RuntimeError("broken")}
    found = list(measure_peers(names=["plain loop", "skorch"], rounds=1))
    assert [(type(m), m.name) for m in found] == [(Skipped, "plain loop"), (Skipped, "skorch")]
    assert found[0].reason == "failed: broken" and fake_peers.closed == ["plain loop", "skorch"]


@pytest.mark.parametrize(("interrupt", "rounds"), [(("skorch", 1), 0), (("skorch", 2), 0), (("skorch", 4), 2)])
def test_an_interrupt_keeps_the_finished_rounds_and_ends_the_processes(fake_peers, interrupt, rounds):
    fake_peers.interrupt = interrupt
    found, said = run(only=["peers"])
    assert {len(m.seconds) for m in found.measurements} == ({rounds} if rounds else set())
    assert len(found.measurements) == (len(PEERS) if rounds else 0) and "interrupted" in said[-1]
    assert fake_peers.closed == fake_peers.made and "skorch" in fake_peers.made


def test_an_error_and_a_consumer_that_stops_end_the_processes(fake_peers):
    fake_peers.losses = {"skorch": ZeroDivisionError()}
    with pytest.raises(ZeroDivisionError):
        list(measure_peers(names=["plain loop", "skorch"], rounds=1))
    assert fake_peers.closed == ["plain loop", "skorch"]
    fake_peers.losses = {}
    fake_peers.calls.clear()
    stopped = measure_peers(names=["plain loop", "fastai"], rounds=1)
    assert next(stopped).name == "plain loop"
    stopped.close()
    assert fake_peers.closed[2:] == ["plain loop", "fastai"]


# Parts


def test_first_takes_the_first_of_every_pass():
    assert [list(First([1, 2, 3], 2)), list(First([1, 2, 3], None)), list(First([1, 2, 3], 9))] == [
        [1, 2],
        [1, 2, 3],
        [1, 2, 3],
    ]
    again = First([1, 2, 3], 2)
    assert list(again) == list(again)


def test_there_is_no_floor_of_onednn_without_it(few_images, monkeypatch):
    monkeypatch.setattr(products, "onednn_missing", lambda: "there is none")
    assert [m.name for m in measure_ladder(CPU, names=[PLAIN], steps=2, rounds=1)] == [PLAIN, *FLOORS[:2]]


def test_a_ladder_may_have_no_floor(few_images):
    assert [m.name for m in measure_ladder(CPU, names=[PLAIN], steps=2, rounds=1, floor=False)] == [PLAIN]


def test_on_an_nvidia_gpu_the_floor_is_launched_at_once(few_images, monkeypatch, cuda_graphs):
    """Launched one by one, the products would take longer than a whole training that is a graph."""
    x = torch.zeros(())
    fake_rungs(monkeypatch)
    monkeypatch.setattr(the_ladder, "plain", lambda device, hidden: plain(CPU, hidden))
    monkeypatch.setattr(the_ladder, "five_products", lambda *where: lambda: x.add_(1))
    monkeypatch.setattr(the_ladder, "in_turn", lambda parts, **how: [(name, [part()]) for name, part in parts.items()])
    found = list(measure_ladder(torch.device("cuda"), steps=7))
    assert [m.name for m in found] == FLOORS[:2] and cuda_graphs.replays == 2
    assert x == 2 * (WARMUP + 7 + 7)  # recording is a run, too, but on a GPU


# Where a step goes


@pytest.fixture
def fixed_launches(monkeypatch):
    """Every launch is said to take 1 s, so a pass of 64 batches of one image 64 s. Notes what was run."""
    ran = []
    losses = lambda products, data, state, batches, *settings: torch.zeros(batches.shape[:2]).flatten()  # noqa: E731
    monkeypatch.setattr(compiled_epoch, "compiled", lambda: losses)

    def fake(function):
        ran.append(function())
        return type("Measurement", (), {"median": 64.0})

    monkeypatch.setattr(the_ladder, "measure", fake)
    return ran


def timed_rung(name, seconds, **proof):
    return Timed(
        "ladder", name, "cpu", 1, [seconds * 10] * 3, {"hidden": 128}, {"images": 1280, "steps": 10}, None, proof
    )


MM, MM_TRANSPOSED = (f"products alone, {name}" for name in list(products.PRODUCTS)[:2])


def test_a_step_is_its_products_its_launches_and_the_rest(fixed_launches):
    measured = [timed_rung(PLAIN, 9.0), timed_rung("backward written out", 6.0), timed_rung("tensors in memory", 11.0)]
    measured += [timed_rung("compiled epoch", 4.5, products="torch.mm, weights [784, H]")]
    measured += [timed_rung(MM, 4.0), timed_rung(MM_TRANSPOSED, 3.0)]
    found = above_the_floor(measured)
    assert list(found) == [PLAIN, "backward written out", "compiled epoch"]  # as named; what was not timed is left out
    parts = ["products", "a slower library", "launches", "passes over memory"]
    assert all(list(p) == parts for p in found.values())
    assert [list(p.values()) for p in found.values()] == [[3, 1, 1, 4], [3, 1, 1, 1], [3, 0, 1, 0.5]]
    assert [len(losses) for losses in fixed_launches] == [64, 64, 64]  # the compiled epoch's as well
    assert all(loss.dim() == 0 for losses in fixed_launches for loss in losses)


def test_launches_are_those_of_next_to_no_data(fixed_launches, monkeypatch):
    made = []
    rung = Rung(PLAIN, lambda device, hidden: made.append(hidden) or plain(device, hidden), None)
    monkeypatch.setattr(the_ladder, "rungs", lambda names: [rung])
    above_the_floor([timed_rung(PLAIN, 9.0), timed_rung(MM, 4.0)], [PLAIN])
    assert made == [1] and len(fixed_launches) == 1


def test_without_products_there_is_no_floor_to_be_above(fixed_launches):
    assert above_the_floor([timed_rung(PLAIN, 9.0)]) == {} and fixed_launches == []


# On a GPU


@pytest.mark.gpu
def test_ceilings_on_the_gpu_measure_transfers_too(gpu):
    found = list(measure_ceilings(gpu, sizes=(64, 256), mebibytes=(1,), seconds=0.001))
    assert_timed(found, "ceilings")
    names = {m.name for m in found}
    assert {"matrix product", "copy", "launch"} <= names and {m.device for m in found} == {gpu.type}
    if gpu.type in ("cuda", "xpu"):
        assert {"transfer, pageable", "transfer, pinned"} <= names


@pytest.mark.gpu
def test_ladder_and_crossover_run_on_the_gpu(gpu):
    found = list(measure_ladder(gpu, names=EAGER, steps=2, rounds=2))
    skipped = {m.name: m.reason for m in found if isinstance(m, Skipped)}
    assert skipped == {r.name: r.missing(gpu) for r in RUNGS if r.name in EAGER and r.missing(gpu)}
    timed = [m for m in found if isinstance(m, Timed)]
    assert_timed(timed, "ladder")
    assert {m.device for m in timed} == {gpu.type} and timed[-1].name == FLOORS[1]
    found = list(measure_crossover(gpu, batch_sizes=(4,), widths=(2,), rounds=2, call_seconds=0.001))
    assert_timed(found, "crossover")
    assert {m.device for m in found} == {"cpu", gpu.type}


@pytest.mark.gpu
def test_account_and_ensemble_run_on_the_gpu(gpu):
    found = list(measure_account(gpu, sizes=(1,), steps=2, rounds=2))
    assert_timed(found, "account")
    both = {"load, textbook, with steps", "load, device, with steps"}  # of a CPU, which does both by itself
    assert {m.name for m in found} == {*ACCOUNT, "step of 1"} - both and {m.device for m in found} == {gpu.type}
    found = list(measure_ensemble(gpu, counts=(1, 2), steps=2, rounds=2))
    assert_timed(found, "ensemble")
    assert {m.device for m in found} == {gpu.type}
