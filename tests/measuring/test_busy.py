"""Other processes on the machine: whether they are seen, whose time is whose, and when it is worth a line."""

import subprocess
import sys
import time

import pytest

from mnist_gpu.measuring import busy
from mnist_gpu.measuring.busy import others_seconds, watched, watching
from mnist_gpu.measuring.timing import alternate

BUSY = "import time; end = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


@pytest.mark.parametrize(
    ("others", "cpus", "usable", "said"),
    [
        (0.05, 2, 2, None),  # a browser
        (1.2, 2, 2, "1.2 of 2 CPUs"),
        (20.0, 64, 2, None),  # of a large server, of which this process may use two others
        (63.2, 64, 2, "63.2 of 64 CPUs"),
    ],
)
def test_a_busy_machine_is_one_that_does_not_leave_the_usable_cpus(monkeypatch, others, cpus, usable, said):
    monkeypatch.setattr(busy.psutil, "cpu_count", lambda: cpus)
    monkeypatch.setattr(busy, "usable_cpus", lambda: usable)
    found = busy.sentence(others)
    assert (said is None and found is None) or said in found


@pytest.mark.skipif(sys.platform == "win32", reason="starts a process that is nobody's child")
def test_a_process_of_somebody_else_is_seen():
    start, deadline = others_seconds(), time.monotonic() + 60
    command = f"{sys.executable} -c '{BUSY.format(5)}' >/dev/null 2>&1 &"  # the shell ends, and its child is an orphan
    subprocess.run(["sh", "-c", command], check=True)
    while others_seconds() - start < 0.5:
        assert time.monotonic() < deadline, "nobody was seen"
        time.sleep(0.1)


def test_what_this_process_starts_is_its_own_at_work_and_when_it_has_ended(monkeypatch):
    times = busy.psutil.cpu_times()
    monkeypatch.setattr(busy.psutil, "cpu_times", lambda: times)  # the machine's stand still, so only its own count
    before, deadline = others_seconds(), time.monotonic() + 60
    child = subprocess.Popen([sys.executable, "-c", BUSY.format(3)])
    while (at_work := before - others_seconds()) < 0.2:
        assert time.monotonic() < deadline and child.poll() is None, "it was not counted"
        time.sleep(0.1)
    child.wait()
    assert before - others_seconds() > at_work - 0.02


@pytest.fixture
def busy_machine(monkeypatch):
    """Two CPUs, both used by others; a clock that goes on by a second at every look."""
    moments = iter(range(10_000))
    monkeypatch.setattr(busy.time, "perf_counter", lambda: float(next(moments)))
    monkeypatch.setattr(busy, "others_seconds", lambda: 2.0 * next(moments))
    monkeypatch.setattr(busy, "usable_cpus", lambda: 2)
    monkeypatch.setattr(busy.psutil, "cpu_count", lambda: 2)


def test_it_is_said_once_for_a_measurement_and_those_within_it(busy_machine):
    said = []
    with watching(said.append), watching(said.append):
        pass
    assert len(said) == 1
    with pytest.raises(KeyError), watching(said.append):
        raise KeyError
    with watching(said.append):
        pass
    assert len(said) == 3  # an error ends the watch


def test_what_takes_turns_and_whole_measurements_are_watched(busy_machine, capsys):
    alternate({"a": lambda: None}, rounds=1, clock=lambda: 0.0)
    assert capsys.readouterr().out.count("Busy machine") == 1

    @watched
    def measurement(n):
        for i in range(n):
            alternate({"a": lambda: None}, rounds=1, clock=lambda: 0.0)
            yield i

    assert list(measurement(3)) == [0, 1, 2] and capsys.readouterr().out.count("Busy machine") == 1
