"""The benchmark as a whole: which sections it runs, what it keeps, and what it says."""

import contextlib
from dataclasses import replace

import pytest
import torch

from mnist_gpu import benchmark
from mnist_gpu.benchmark import BROKEN_OFF, SECTIONS, import_seconds, summary
from mnist_gpu.faster.ladder import PLAIN, TEXTBOOK, WIDE
from mnist_gpu.measuring import busy
from mnist_gpu.measuring.climb import FLOORS
from mnist_gpu.measuring.results import Results, Skipped, Timed, read, write
from mnist_gpu.measuring.timing import alternate

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def measures(monkeypatch, section, function):
    """The section is measured by `function` instead."""
    monkeypatch.setitem(SECTIONS, section, replace(SECTIONS[section], measure=function))


# The whole


def fake(section, *, fail=None):
    """A section that yields one measurement a call, and may then raise `fail`."""

    def run(device, **options):
        yield Timed(section, "fake", device.type, 2, [1.0])
        if fail:
            raise fail

    return run


def run(device=CPU, **options):
    """The benchmark's results, and what it said."""
    said = []
    return benchmark.benchmark(device, say=said.append, **options), said


@pytest.fixture
def fake_sections(monkeypatch):
    for section in SECTIONS:
        measures(monkeypatch, section, fake(section))


def test_the_benchmark_runs_the_sections_asked_for(fake_sections):
    found, said = run(quick=True, only=["ladder", "ceilings"])
    assert [m.section for m in found.measurements] == ["ladder", "ceilings"] and found.quick
    assert found.skipped == []
    assert found.environment["device"] == "cpu" and len(found.date) == 10
    said = [line for line in said if not line.startswith("(Busy machine")]  # where it is one
    assert [line.split()[0] for line in said] == ["ladder", "ladder", "ceilings", "ceilings"]
    found, _ = run()
    assert list(dict.fromkeys(m.section for m in found.measurements)) == list(SECTIONS) and not found.quick


@pytest.mark.parametrize("quick", [False, True])
def test_a_quick_run_is_shorter(monkeypatch, quick):
    asked = {}

    def asking(section):
        def ask(*device, **options):
            asked.setdefault(section, []).append(options)
            return []

        return ask

    for section in SECTIONS:
        measures(monkeypatch, section, asking(section))
    run(quick=quick, progress=iter)
    turns, ten = ({"rounds": rounds, "progress": iter} for rounds in (4 if quick else 10, 10))
    assert asked == {
        "ceilings": [{"seconds": 0.02} if quick else {}],
        "pipelines": [ten | {"batches": 50 if quick else 100}],
        "account": [turns],
        "crossover": [turns],
        "ladder": [ten | ({"steps": 50} if quick else {})],
        "ensemble": [turns],
    }


def test_on_a_gpu_every_section_runs_on_both_devices_but_crossover_once(fake_sections, monkeypatch):
    environment = {"cpu_name": "AMD EPYC", "device_name": "NVIDIA H200"}
    monkeypatch.setattr(benchmark, "environment", lambda device: environment)
    monkeypatch.setattr(benchmark, "synchronize", lambda device: None)
    found, said = run(CUDA, only=["ceilings", "crossover"])
    assert [(m.section, m.device) for m in found.measurements] == [
        ("ceilings", "cpu"),
        ("ceilings", "cuda"),
        ("crossover", "cuda"),
    ]
    assert "ceilings on AMD EPYC (cpu) ..." in said and "ceilings on NVIDIA H200 (cuda) ..." in said


def test_a_busy_machine_is_named_once_a_section(monkeypatch, capsys):
    def measured_twice(*device, **options):
        for _ in range(2):
            alternate({"a": lambda: None}, rounds=1)
            yield Skipped("ceilings", "a", "cpu", "")

    monkeypatch.setattr(busy, "SHORTEST", 0.0)
    monkeypatch.setattr(busy, "sentence", lambda others: "(Busy machine)")
    for section in ("ceilings", "ladder"):
        measures(monkeypatch, section, measured_twice)
    _, said = run(only=["ceilings", "ladder"])
    assert said[1::3] == ["(Busy machine)"] * 2 and len(said) == 6 and capsys.readouterr().out == ""


def test_an_interrupt_keeps_what_is_finished(monkeypatch):
    measures(monkeypatch, "ceilings", fake("ceilings"))
    measures(monkeypatch, "pipelines", fake("pipelines", fail=KeyboardInterrupt))
    measures(monkeypatch, "crossover", lambda *a, **k: pytest.fail("it went on"))
    found, said = run(only=["ceilings", "pipelines", "crossover"])
    assert [m.section for m in found.measurements] == ["ceilings", "pipelines"] and found.skipped == []
    assert "interrupted" in said[-1]


def test_an_error_ends_its_section_and_the_others_go_on(monkeypatch):
    measures(monkeypatch, "ceilings", fake("ceilings"))
    measures(monkeypatch, "pipelines", fake("pipelines", fail=RuntimeError("a worker died")))
    measures(monkeypatch, "crossover", fake("crossover"))
    found, said = run(only=["ceilings", "pipelines", "crossover"])
    assert [m.section for m in found.measurements] == ["ceilings", "pipelines", "crossover"]
    assert found.skipped == [Skipped("pipelines", BROKEN_OFF, "cpu", "RuntimeError: a worker died")]
    assert "pipelines on cpu broken off: RuntimeError: a worker died" in said


def test_what_a_section_skips_is_listed_apart(monkeypatch):
    skipped, timed = Skipped("ladder", "TF32", "cpu", "no GPU"), Timed("ladder", PLAIN, "cpu", 1, [1.0])
    measures(monkeypatch, "ladder", lambda *a, **k: iter([skipped, timed]))
    found, _ = run(only=["ladder"])
    assert found.skipped == [skipped] and found.measurements == [timed]


# What it says


def test_the_summary_names_the_highest_rates_and_compares_with_the_textbook():
    floor = next(iter(FLOORS))

    def ceiling(name, seconds, parameters, per_call):
        return Timed("ceilings", name, "cpu", 1, [seconds], parameters, per_call)

    def timed(section, name, seconds, hidden=128, device="cpu"):
        return Timed(section, name, device, 1, [seconds] * 10, {"hidden": hidden} if hidden else {})

    found = Results(
        {"cpu_name": "AMD EPYC", "device_name": "NVIDIA H200"},
        [
            ceiling("matrix product", 1.0, {"size": 64}, {"flop": 5e9}),
            ceiling("matrix product", 1.0, {"size": 128}, {"flop": 7e9}),
            ceiling("copy", 1.0, {"mebibytes": 1}, {"bytes": 90e9}),  # within the caches, so not the memory's
            ceiling("copy", 1.0, {"mebibytes": 256}, {"bytes": 20e9}),
            timed("pipelines", "dataloader", 6.0, None),
            timed("pipelines", "memory", 1.0, None),
            timed("ladder", TEXTBOOK, 8.0),
            timed("ladder", PLAIN, 2.0),
            timed("ladder", floor, 1.0),
            timed("ladder", WIDE[0], 9.0, 2048),
            timed("ladder", WIDE[1], 3.0, 2048),
            timed("ladder", TEXTBOOK, 5.0, device="cuda"),
            timed("ladder", PLAIN, 1.0, device="cuda"),
        ],
        "2026-01-31",
        skipped=[Skipped("ladder", "TF32", "cpu", "needs an NVIDIA GPU")],
    )
    lines = summary(found).splitlines()
    rest = "(interval {0} to {0}, 10 pairs).".format
    assert lines == [
        "AMD EPYC (cpu): matrix products up to 7 GFLOP/s (1 threads)",
        "AMD EPYC (cpu): copies of 256 MiB at 20 GB/s (1 threads)",
        f"AMD EPYC (cpu), pipelines: memory is 6.00 times as fast as dataloader {rest('6.00')}",
        f"AMD EPYC (cpu), ladder: {PLAIN} is 4.00 times as fast as {TEXTBOOK} {rest('4.00')}",
        f"AMD EPYC (cpu), ladder: {floor} is 8.00 times as fast as {TEXTBOOK} {rest('8.00')}",
        f"AMD EPYC (cpu), ladder: {floor} is 2.00 times as fast as {PLAIN} {rest('2.00')}",
        f"AMD EPYC (cpu), ladder, width 2048: {WIDE[1]} is 3.00 times as fast as {WIDE[0]} {rest('3.00')}",
        f"NVIDIA H200 (cuda), ladder: {PLAIN} is 5.00 times as fast as {TEXTBOOK} {rest('5.00')}",
        "skipped: ladder, TF32 (cpu): needs an NVIDIA GPU",
    ]


def test_the_summary_of_nothing_says_why_there_is_nothing():
    skipped = [Skipped("ceilings", BROKEN_OFF, "cpu", "RuntimeError: broken")]
    assert summary(Results({}, [], "2026-01-31", skipped=skipped)).splitlines() == [
        f"skipped: ceilings, {BROKEN_OFF} (cpu): RuntimeError: broken",
    ]


def test_an_import_is_timed_in_fresh_processes():
    (seconds,) = import_seconds(repeats=1)
    assert seconds > 0


@pytest.mark.parametrize(("load", "busy"), [(None, False), (0.5, False), (0.8, True)])
def test_who_records_on_a_busy_machine_is_told(monkeypatch, tmp_path, capsys, load, busy):
    monkeypatch.setattr(benchmark, "environment", lambda device: {"load_average": load})
    monkeypatch.setattr(benchmark, "benchmark", lambda *a, **k: Results({}, [], "2026-01-31"))
    monkeypatch.setattr(benchmark, "import_seconds", lambda: [0.001, 0.002, 0.003])
    assert benchmark.run(record=tmp_path / "here.json") == 0
    out = capsys.readouterr().out
    assert out.endswith("import mnist_gpu.training beyond torch: 2.0 ms (median)\n")
    assert ("This machine is busy (load 0.8" in out) == busy


def test_one_of_two_devices_can_be_measured_alone(fake_sections, monkeypatch):
    monkeypatch.setattr(benchmark, "environment", lambda device: {"device_name": "a GPU", "cpu_name": "a CPU"})
    monkeypatch.setattr(benchmark, "synchronize", lambda device: None)
    for on, devices in (("cpu", ["cpu"]), ("gpu", ["cuda"]), (None, ["cpu", "cuda"])):
        found, _ = run(CUDA, only=["ceilings"], on=on)
        assert [m.device for m in found.measurements] == devices
    found, _ = run(CUDA, only=["crossover"], on="cpu")
    assert found.measurements == []  # which takes both in one run
    with pytest.raises(ValueError, match="there is no GPU here to measure on"):
        run(CPU, on="gpu")


@pytest.fixture
def record(tmp_path):
    return tmp_path / "here.json"


def test_a_record_can_be_continued(fake_sections, record):
    for section in ("ceilings", "ladder", "ladder"):
        assert benchmark.run(only=[section], record=record, append=True) == 0
    found = read(record)
    assert [m.section for m in found.measurements] == ["ceilings", "ladder"]
    write(record, replace(found, environment=found.environment | {"torch": "1.0"}))
    with pytest.raises(ValueError, match="another machine or program: torch differ"):
        benchmark.run(only=["ladder"], record=record, append=True)


def test_a_record_is_not_replaced_by_a_run_that_does_not_add_to_it(fake_sections, record):
    assert benchmark.run(only=["ceilings"], record=record) == 0
    before = record.read_bytes()
    with pytest.raises(ValueError, match=rf"{record.name} is there already.*--append"):
        benchmark.run(only=["ladder"], record=record)
    assert record.read_bytes() == before


class Gone(BaseException):
    """The machine goes away: nothing that the program would still do is done."""


@pytest.mark.parametrize("end", [KeyboardInterrupt, Gone, RuntimeError("the driver is lost")])
@pytest.mark.parametrize("at", range(4))
def test_a_record_that_is_cut_short_anywhere_and_continued_has_all_that_was_measured(monkeypatch, record, at, end):
    names = ("ceilings", "pipelines", "account", "ladder")

    def section(name, rounds, fail=None):
        def measure(device, **options):
            yield Skipped(name, "for CPUs alone", device.type, "needs a CPU")  # always first, as on a GPU
            yield Timed(name, "first", device.type, 1, [1.0] * rounds)
            if fail:
                yield Timed(name, "second", device.type, 1, [1.0])  # one round, then the end
                raise fail
            yield Timed(name, "second", device.type, 1, [1.0] * rounds)

        return measure

    def go(rounds, fail_at=None):
        for i, name in enumerate(names):
            measures(monkeypatch, name, section(name, rounds, end if i == fail_at else None))
        with contextlib.suppress(Gone):
            benchmark.run(only=list(names), record=record, append=True)
        found = read(record).measurements if record.exists() else []
        return {(m.section, m.name): len(m.seconds) for m in found}

    whole = {(name, which): 10 for name in names for which in ("first", "second")}
    found = go(10, at)
    assert all(found[name, which] == 10 for name in names[:at] for which in ("first", "second"))
    assert go(10) == whole
    assert go(4, at) == whole == go(4)
