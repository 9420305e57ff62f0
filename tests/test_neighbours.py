"""Other processes on the machine: whether they are seen, whose time is whose, and when it is worth a line."""

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from mnist_gpu.measuring import neighbours
from mnist_gpu.measuring.neighbours import Mark, mark, own_seconds, sentence, watching
from mnist_gpu.measuring.timing import alternate, measure

BUSY = "import time; end = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


@pytest.mark.parametrize(
    ("seconds", "others", "cpus", "usable", "said"),
    [
        (10.0, 0.5, 2, 2, None),  # 0.05 of a CPU: a browser
        (10.0, 12.0, 2, 2, "other processes used 1.2 of 2 CPUs during this measurement"),
        (10.0, 200.0, 64, 2, None),  # twenty CPUs of a large server, of which this process may use two others
        (10.0, 632.0, 64, 2, "other processes used 63.2 of 64 CPUs"),
        (0.1, 0.2, 2, 2, None),  # too short to tell
    ],
)
def test_a_busy_machine_is_one_that_does_not_leave_the_usable_cpus(seconds, others, cpus, usable, said):
    found = sentence(Mark(seconds, others), Mark(0.0, 0.0), cpus, usable)
    assert (said is None and found is None) or said in found


def test_what_was_used_before_is_said_too():
    assert ", and 1.5 before. " in sentence(Mark(1.0, 1.0), Mark(2.0, 3.0), 2, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="starts a process that is nobody's child")
def test_a_process_of_somebody_else_is_seen():
    start, deadline = mark(), time.monotonic() + 60
    command = f"{sys.executable} -c '{BUSY.format(5)}' >/dev/null 2>&1 &"  # the shell ends, and its child is an orphan
    subprocess.run(["sh", "-c", command], check=True)
    while mark().others - start.others < 0.5:
        assert time.monotonic() < deadline, "nobody was seen"
        time.sleep(0.1)


def test_a_process_that_this_one_started_is_not_another_while_it_works_and_when_it_has_ended():
    before = own_seconds()
    child, deadline = subprocess.Popen([sys.executable, "-c", BUSY.format(3)]), time.monotonic() + 60
    while (at_work := own_seconds() - before) < 0.2:
        assert time.monotonic() < deadline and child.poll() is None, "it was not counted"
        time.sleep(0.1)
    child.wait()
    assert own_seconds() - before > at_work - 0.02


@pytest.fixture
def seen(monkeypatch):
    """Marks that the test gives: every second others use half a CPU; a measurement takes two seconds."""
    moments = iter(range(0, 1000, 2))
    monkeypatch.setattr(neighbours, "mark", lambda: Mark(t := float(next(moments)), t / 2))
    monkeypatch.setattr(neighbours, "_seen", neighbours.Seen(neighbours.mark()))
    monkeypatch.setattr(neighbours.psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(neighbours, "usable_cpus", lambda: 2)
    return neighbours._seen


def test_a_report_adds_up_all_measurements_since_the_last_and_counts_none_twice(seen):
    said = []
    with watching(), watching():
        pass
    with watching():
        pass
    assert seen.during == Mark(4.0, 2.0) and seen.before == Mark(4.0, 2.0)
    neighbours.report(said.append)
    neighbours.report(said.append)
    assert len(said) == 1 and "used 0.5 of 2 CPUs during this measurement, and 0.5 before" in said[0]


def test_an_error_ends_the_watch(seen):
    with pytest.raises(KeyError), watching():
        raise KeyError
    assert not seen.watching and seen.during == Mark(2.0, 1.0)


def test_measurements_are_watched(seen):
    measure(lambda: None, min_seconds=0.001)
    alternate({"a": lambda: None}, rounds=1)
    assert seen.during == Mark(4.0, 2.0)


def test_a_notebooks_cell_ends_with_the_report(seen, monkeypatch, capsys):
    hooks = []
    shell = SimpleNamespace(events=SimpleNamespace(register=lambda name, hook: hooks.append((name, hook))))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(neighbours, "_reports_cells", False)
    for _ in range(2):
        with watching():
            pass
    ((name, hook),) = hooks
    assert name == "post_run_cell"
    hook(None)
    assert "Busy machine" in capsys.readouterr().out
    hook(None)  # a cell that measures nothing
    assert capsys.readouterr().out == ""
