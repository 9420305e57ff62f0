"""The benchmark as a whole: which sections it runs, and what it keeps."""

import contextlib
from dataclasses import replace

import pytest
import torch

from mnist_gpu import benchmark
from mnist_gpu.benchmark import CPU, SECTIONS, plan, summary
from mnist_gpu.faster.ladder import PLAIN, TEXTBOOK
from mnist_gpu.measuring.results import BROKEN_OFF, Results, Skipped, Timed, read, write

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def cpu_alone(monkeypatch):
    """The benchmark takes the CPU for the machine's only device."""
    monkeypatch.setattr(benchmark, "pick_device", lambda: CPU)


@pytest.fixture
def record(tmp_path):
    return tmp_path / "here.json"


def measured_by(monkeypatch, section, function):
    monkeypatch.setitem(SECTIONS, section, function)


def fake(section, *, fail=None):
    """A section that yields what it skips and two measurements of so many rounds. `fail` is raised in the second."""

    def measure(device, rounds=10, **options):
        yield Skipped(section, "for GPUs alone", device.type, "needs a GPU")
        yield Timed(section, "first", device.type, 1, [1.0] * rounds)
        yield Timed(section, "second", device.type, 1, [1.0] * (1 if fail else rounds))
        if fail:
            raise fail

    return measure


@pytest.fixture
def fake_sections(monkeypatch):
    for section in SECTIONS:
        measured_by(monkeypatch, section, fake(section))


def test_it_runs_the_sections_asked_for_on_every_device_but_crossover_once():
    def chosen(device, only, on=None):
        return [(name, here.type) for name, here in plan(device, only, on)]

    assert [name for name, _ in chosen(CPU, None)] == list(SECTIONS)
    assert chosen(CUDA, ["crossover", "ceilings"]) == [("ceilings", "cpu"), ("crossover", "cuda"), ("ceilings", "cuda")]
    assert chosen(CUDA, ["ladder"], "cpu") == [("ladder", "cpu")] and chosen(CUDA, ["crossover"], "cpu") == []
    assert chosen(CUDA, ["ladder"], "gpu") == [("ladder", "cuda")]
    with pytest.raises(ValueError, match="no GPU here"):
        benchmark.run(on="gpu")


def test_an_error_ends_its_section_and_the_others_go_on(fake_sections, monkeypatch, record, capsys):
    measured_by(monkeypatch, "crossover", fake("crossover", fail=RuntimeError("a worker died")))
    assert benchmark.run(only=["ceilings", "crossover", "ladder"], record=record) == 1
    found = read(record)
    assert [m.section for m in found.measurements] == ["ceilings"] * 2 + ["crossover"] * 2 + ["ladder"] * 2
    assert Skipped("crossover", BROKEN_OFF, "cpu", "RuntimeError: a worker died") in found.skipped
    assert capsys.readouterr().out.count("a worker died") == 2  # at once, and in the summary


def test_a_record_is_added_to_on_the_same_machine_alone(fake_sections, record):
    for section in ("ceilings", "ladder", "ladder"):
        assert benchmark.run(only=[section], record=record) == 0
    found = read(record)
    assert [m.section for m in found.measurements] == ["ceilings"] * 2 + ["ladder"] * 2
    write(record, replace(found, environment=found.environment | {"torch": "1.0"}))
    before = record.read_bytes()
    with pytest.raises(ValueError, match="torch"):
        benchmark.run(only=["ladder"], record=record)
    assert record.read_bytes() == before


class Gone(BaseException):
    """The machine goes away."""


@pytest.mark.parametrize("end", [KeyboardInterrupt, Gone, RuntimeError("the driver is lost")])
@pytest.mark.parametrize("at", range(3))
def test_a_record_that_is_cut_short_anywhere_and_continued_has_all_that_was_measured(monkeypatch, record, at, end):
    names = ("ceilings", "crossover", "ladder")

    def go(fail_at=None, most=10):
        for i, name in enumerate(names):
            section = fake(name, fail=end if i == fail_at else None)
            measured_by(monkeypatch, name, lambda device, section=section, **_: section(device, most))
        with contextlib.suppress(Gone):
            benchmark.run(only=list(names), record=record)
        return {(m.section, m.name): len(m.seconds) for m in read(record).measurements}

    whole = {(name, which): 10 for name in names for which in ("first", "second")}
    found = go(at)
    assert all(found[name, which] == 10 for name in names[:at] for which in ("first", "second"))
    assert go() == whole
    assert go(at, most=4) == whole == go(most=4)


def test_the_summary_has_the_lines_of_every_device_and_what_was_skipped():
    times = [("cpu", TEXTBOOK, 8.0), ("cpu", PLAIN, 2.0), ("cuda", TEXTBOOK, 5.0), ("cuda", PLAIN, 1.0)]
    measured = [Timed("ladder", name, on, 1, [seconds] * 10, {"hidden": 128}) for on, name, seconds in times]
    skipped = [Skipped("ladder", "TF32", "cpu", "needs an NVIDIA GPU")]
    environment = {"cpu_name": "AMD EPYC", "device_name": "NVIDIA H200"}
    cpu, gpu, last = summary(Results(environment, measured, "2026-01-31", skipped=skipped)).splitlines()
    assert "AMD EPYC" in cpu and f"{PLAIN} is 4.00 times as fast as {TEXTBOOK}" in cpu
    assert "NVIDIA H200" in gpu and "5.00 times" in gpu and "TF32" in last and "needs an NVIDIA GPU" in last
