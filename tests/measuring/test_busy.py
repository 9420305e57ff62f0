"""Other processes on the machine: whether they are seen, whose time is whose, and when it is worth a line."""

import subprocess
import sys
import time

import pytest

from mnist_gpu.measuring import busy
from mnist_gpu.measuring.busy import others_seconds, watching
from mnist_gpu.measuring.timing import alternate

BUSY = "import time; end = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


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
def machine(monkeypatch):
    """A function that sets how many CPUs others use, of how many, and how many are usable here; a second is a look."""
    moments = iter(range(10_000))
    monkeypatch.setattr(busy.time, "perf_counter", lambda: float(next(moments)))

    def of(others, cpus=2, usable=2):
        monkeypatch.setattr(busy, "others_seconds", lambda: others * next(moments))
        monkeypatch.setattr(busy, "usable_cpus", lambda: usable)
        monkeypatch.setattr(busy.psutil, "cpu_count", lambda: cpus)

    return of


@pytest.mark.parametrize(("others", "cpus", "said"), [(0.05, 2, 0), (1.2, 2, 1), (20.0, 64, 0), (63.2, 64, 1)])
def test_a_busy_machine_is_one_that_does_not_leave_the_usable_cpus(machine, capsys, others, cpus, said):
    machine(others, cpus)
    with watching():
        pass
    out = capsys.readouterr().out
    assert out.count(f"of {cpus} CPUs") == said == len(out.splitlines())


def test_it_is_said_once_for_a_measurement_and_those_within_it(machine, capsys):
    machine(4.0)

    def measurement(n):
        with watching():
            for i in range(n):
                alternate({"a": lambda: None}, rounds=1, clock=lambda: 0.0)
                yield i

    assert list(measurement(3)) == [0, 1, 2] and capsys.readouterr().out.count("of 2 CPUs") == 1
    with pytest.raises(KeyError), watching():
        raise KeyError
    alternate({"a": lambda: None}, rounds=1, clock=lambda: 0.0)  # an error has ended the watch
    assert len(capsys.readouterr().out.splitlines()) == 2
