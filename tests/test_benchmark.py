import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mnist_gpu import benchmark
from mnist_gpu.benchmark import (
    FLOOR,
    SECTIONS,
    TEXTBOOK,
    First,
    ceilings,
    crossover,
    import_seconds,
    ladder,
    matrix_products,
    pipelines,
    summary,
    train_part,
    training_step,
)
from mnist_gpu.data import DeviceBatches
from mnist_gpu.model import step_bytes, step_flops
from mnist_gpu.results import Results, Timed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch):
    monkeypatch.setattr(benchmark, "usable_cpus", lambda: 2)


@pytest.fixture
def few_images(monkeypatch, mnist):
    """The ladder's pipelines have ten batches."""

    def few(kind, device):
        return DeviceBatches(mnist[0][:1280], mnist[1][:1280], device=device)

    monkeypatch.setattr(benchmark, "make_batches", few)


def assert_timed(found, section):
    assert found
    for m in found:
        assert m.section == section and m.seconds and min(m.seconds) > 0, m


# The sections


def test_ceilings_measure_products_and_copies_with_one_thread_and_all():
    found = list(ceilings(CPU, sizes=(8, 16), mebibytes=(1,), seconds=0.001))
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
    found = list(pipelines(CPU, batches=2, rounds=2, workers=(1,)))
    assert_timed(found, "pipelines")
    one_by_one = ["dataloader", "dataloader, pinned", "dataloader, 1 workers"]
    assert sorted(m.name for m in found) == sorted([*one_by_one, "memory", "memory, pinned", "device"])
    assert all(m.per_call == {"images": 256} and len(m.seconds) == 2 and m.threads == 1 for m in found)


def test_crossover_measures_every_batch_size_and_width_in_seconds_of_one_step():
    found = list(crossover(CPU, batch_sizes=(4, 8), widths=(2,), rounds=2, call_seconds=0.001))
    assert_timed(found, "crossover")
    cells = [(m.threads, m.parameters["batch_size"], m.parameters["hidden"]) for m in found]
    assert sorted(cells) == [(1, 4, 2), (1, 8, 2), (2, 4, 2), (2, 8, 2)]
    for m in found:
        size = m.parameters["batch_size"]
        assert m.per_call == {"flop": sum(step_flops(size, 2)), "bytes": step_bytes(size, 2), "images": size}
        assert len(m.seconds) == 2 and m.device == "cpu"


def test_crossover_repeats_a_step_within_a_call_and_divides_by_the_repeats(monkeypatch):
    calls = []
    monkeypatch.setattr(benchmark, "training_step", lambda *size: lambda: calls.append(torch.get_num_threads()))
    monkeypatch.setattr(benchmark, "seconds_of", lambda function, device: 0.001)

    def alternate(sides, **options):
        for function in sides.values():
            function()
        return {name: [0.6] for name in sides}

    monkeypatch.setattr(benchmark, "alternate", alternate)
    found = list(crossover(CPU, batch_sizes=(4,), widths=(2,), call_seconds=0.02))
    assert calls == [1] * 20 + [2] * 20
    assert [m.seconds for m in found] == [pytest.approx([0.03])] * 2


def test_the_training_step_is_on_a_batch_of_the_size_asked_for(monkeypatch):
    seen = []

    def make_step(model, optimizer):
        return lambda images, labels: seen.append((images.shape, labels.shape, model.hidden.out_features))

    monkeypatch.setattr(benchmark, "make_step", make_step)
    for batch_size in (3, 60_001):  # more than there are images, too
        training_step(CPU, batch_size, 5)()
        assert seen.pop() == ((batch_size, 1, 28, 28), (batch_size,), 5)


def test_the_ladder_measures_the_same_steps_on_every_pipeline_and_the_floor(few_images):
    found = list(ladder(CPU, steps=3, rounds=2))
    assert_timed(found, "ladder")
    assert [m.name for m in found] == ["dataloader", "memory", "device", FLOOR]
    for m in found:
        assert m.per_call == {"images": 384, "steps": 3} and len(m.seconds) == 2
        assert (m.threads, m.parameters) == (1, {"batch_size": 128, "hidden": 128})


def test_a_ladder_without_a_number_of_steps_takes_whole_epochs(few_images):
    (rung, floor) = ladder(CPU, rounds=1, kinds=("device",))
    assert rung.per_call == floor.per_call == {"images": 60_000, "steps": 469}


def test_every_call_of_the_ladder_starts_from_the_same_fresh_weights(few_images, monkeypatch):
    starts, original = [], benchmark.train

    def train(model, step, batches, **options):
        starts.append(model.hidden.weight.detach().clone())
        history = original(model, step, batches, **options)
        assert not torch.equal(model.hidden.weight, starts[-1])
        return history

    monkeypatch.setattr(benchmark, "train", train)
    list(ladder(CPU, steps=2, rounds=3, kinds=("memory", "device")))
    assert len(starts) == 2 * (3 + 1)  # a warm-up and three rounds of two rungs
    assert all(torch.equal(start, starts[0]) for start in starts)


def test_a_part_of_a_training_is_as_many_steps_as_asked_for(mnist, capsys):
    batches = DeviceBatches(mnist[0][:1280], mnist[1][:1280])
    assert len(train_part(CPU, batches, 3)[0].losses) == 3
    assert len(train_part(CPU, batches)[0].losses) == 10
    assert capsys.readouterr().out == ""


def test_first_takes_the_first_of_every_pass():
    assert [list(First([1, 2, 3], 2)), list(First([1, 2, 3], None)), list(First([1, 2, 3], 9))] == [
        [1, 2],
        [1, 2, 3],
        [1, 2, 3],
    ]
    again = First([1, 2, 3], 2)
    assert list(again) == list(again)


@pytest.mark.parametrize(("batch_size", "hidden"), [(128, 128), (3, 17)])
def test_the_floor_is_exactly_the_matrix_products_of_a_step(batch_size, hidden):
    products = matrix_products(CPU, batch_size, hidden)
    with FlopCounterMode(display=False) as counter:
        products()
    assert counter.get_total_flops() == sum(step_flops(batch_size, hidden))


# The whole


def fake(section, *, fail=False):
    """A section that yields one measurement a device, changes the threads, and may be interrupted after that."""

    def run(device, **options):
        torch.set_num_threads(2)
        yield Timed(section, "fake", device.type, 2, [1.0])
        if fail:
            raise KeyboardInterrupt

    return run


def run(**options):
    said = []
    return benchmark.benchmark(CPU, say=said.append, **options), said


def test_the_benchmark_runs_the_sections_asked_for_and_restores_the_threads(monkeypatch):
    for section in SECTIONS:
        monkeypatch.setattr(benchmark, section, fake(section))
    found, said = run(quick=True, only=["ladder", "ceilings"])
    assert [m.section for m in found.measurements] == ["ladder", "ceilings"] and found.quick
    assert torch.get_num_threads() == 1
    assert found.environment["device"] == "cpu" and len(found.date) == 10
    assert [line.split()[0] for line in said] == ["ladder", "ladder", "ceilings", "ceilings"]
    found, _ = run()
    assert [m.section for m in found.measurements] == list(SECTIONS) and not found.quick


def test_an_interrupt_keeps_what_is_finished(monkeypatch):
    monkeypatch.setattr(benchmark, "ceilings", fake("ceilings"))
    monkeypatch.setattr(benchmark, "pipelines", fake("pipelines", fail=True))
    monkeypatch.setattr(benchmark, "crossover", lambda *a, **k: pytest.fail("it went on"))
    found, said = run(only=["ceilings", "pipelines", "crossover"])
    assert [m.section for m in found.measurements] == ["ceilings", "pipelines"]
    assert "interrupted" in said[-1] and torch.get_num_threads() == 1


def test_an_error_restores_the_threads(monkeypatch):
    def broken(device, **options):
        torch.set_num_threads(2)
        raise RuntimeError("broken")
        yield

    monkeypatch.setattr(benchmark, "ladder", broken)
    with pytest.raises(RuntimeError, match="broken"):
        run(only=["ladder"])
    assert torch.get_num_threads() == 1


def test_the_summary_names_the_highest_rates_and_compares_with_the_textbook(monkeypatch):
    monkeypatch.setattr(benchmark, "import_seconds", lambda: [0.001, 0.002, 0.003])

    def ceiling(name, seconds, parameters, per_call):
        return Timed("ceilings", name, "cpu", 1, [seconds], parameters, per_call)

    def rung(name, seconds):
        return Timed("ladder", name, "cpu", 1, [seconds] * 4)

    found = Results(
        {"cpu_name": "AMD EPYC", "device_name": "AMD EPYC"},
        [
            ceiling("matrix product", 1.0, {"size": 64}, {"flop": 5e9}),
            ceiling("matrix product", 1.0, {"size": 128}, {"flop": 7e9}),
            ceiling("copy", 1.0, {"mebibytes": 1}, {"bytes": 90e9}),  # within the caches, so not the memory's
            ceiling("copy", 1.0, {"mebibytes": 256}, {"bytes": 20e9}),
            rung(TEXTBOOK, 8.0),
            rung("device", 2.0),
            rung(FLOOR, 1.0),
        ],
        "2026-01-31",
    )
    text = summary(found)
    assert "AMD EPYC (cpu): matrix products up to 7 GFLOP/s (1 threads)" in text
    assert "copies of 256 MiB at 20 GB/s" in text and "90 GB/s" not in text
    assert "device is 4.00 times faster than dataloader" in text
    assert f"{FLOOR} is 8.00 times faster than dataloader" in text
    assert f"{FLOOR} is 2.00 times faster than device" in text
    assert "2.0 ms (median)" in text


def test_an_import_is_timed_in_fresh_processes():
    (seconds,) = import_seconds(repeats=1)
    assert seconds > 0


# On a GPU


@pytest.mark.gpu
def test_ceilings_on_the_gpu_measure_transfers_too(gpu):
    found = list(ceilings(gpu, sizes=(64, 256), mebibytes=(1,), seconds=0.001))
    assert_timed(found, "ceilings")
    names = {m.name for m in found}
    assert {"matrix product", "copy", "launch"} <= names and {m.device for m in found} == {gpu.type}
    if gpu.type in ("cuda", "xpu"):
        assert {"transfer, pageable", "transfer, pinned"} <= names


@pytest.mark.gpu
def test_ladder_and_crossover_run_on_the_gpu(gpu):
    found = list(ladder(gpu, steps=2, rounds=2, kinds=("memory", "device")))
    assert_timed(found, "ladder")
    assert {m.device for m in found} == {gpu.type}
    found = list(crossover(gpu, batch_sizes=(4,), widths=(2,), rounds=2, call_seconds=0.001))
    assert_timed(found, "crossover")
    assert {m.device for m in found} == {"cpu", gpu.type}
