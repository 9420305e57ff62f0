"""What runs everything that only a GPU can show: its parts, here small programs, and how each of them may end."""

import signal
import sys

import psutil
import pytest

from mnist_gpu import gpu
from mnist_gpu.gpu import EXECUTE, Part, do, parts, run
from mnist_gpu.measuring import results
from mnist_gpu.measuring.results import Results, Timed

SLOW = """
import sys, time
try:
    print("working", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("kept µ")
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no interrupt for another program")


def code(text, *arguments, seconds=60, name="a part", needs=()):
    return Part(name, seconds, ["-c", text, *arguments], needs)


def test_a_part_passes_or_fails_and_what_it_prints_is_kept(tmp_path):
    assert do(code("print('one'); print('two')", name="Some Part"), tmp_path, left=100) == ("passed", "two")
    assert (tmp_path / "some-part.log").read_text(encoding="utf-8") == "one\ntwo\n"
    assert do(code("raise SystemExit('because')"), tmp_path, left=100) == ("failed", "because")
    assert do(code(""), tmp_path, left=100) == ("passed", "it printed nothing")


@posix
@pytest.mark.parametrize(("seconds", "left", "handler"), [(3, 99, signal.SIG_IGN), (99, 3, signal.SIG_DFL)])
def test_a_part_whose_time_is_up_may_write_what_it_has(tmp_path, monkeypatch, seconds, left, handler):
    """Also where a script's shell has started this with &, deaf to interrupts, which this program stays."""
    monkeypatch.setattr(gpu, "WORTH", 1)
    before = signal.signal(signal.SIGINT, handler)
    try:
        assert do(code(SLOW, seconds=seconds), tmp_path, left) == ("stopped", "kept µ")
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_part_that_does_not_stop_is_ended_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "GRACE", 1)
    deaf = "import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    child = "import time; time.sleep(300)"
    text = deaf + f"p = subprocess.Popen([sys.executable, '-c', {child!r}]); print(p.pid, flush=True); p.wait()"
    status, pid = do(code(text, seconds=3), tmp_path, left=100)
    assert status == "stopped" and int(pid)
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE


def test_what_is_not_installed_is_skipped_by_name_and_without_time_nothing_begins(tmp_path):
    part = code("print(1)", needs=("json", "no_such_module"))
    assert do(part, tmp_path, left=100) == ("skipped", "no_such_module not installed here")
    assert do(code("print(1)"), tmp_path, left=1)[0] == "skipped" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("on", ["gpu", "cpu"])
def test_the_parts_begin_with_what_is_worth_most_and_each_has_a_limit(tmp_path, on):
    every = list(parts(tmp_path, tmp_path / "it.json", on))
    names = [part.name for part in every]
    chapters = [f"chapter {name}" for name in ("07", "06", "09", "08", "05", "01", "03")]
    beside = ["the CPU beside it", "the CPU's ladder"] if on == "gpu" else []
    assert names == ["doctor", "tests", "ladder", "the rest of the benchmark", "figure", *chapters, *beside]
    for part in every:
        assert 30 < part.seconds <= 600
        if "benchmark" in part.arguments:
            assert {tmp_path / "it.json", "--append", "cpu" if part.name in beside else on} <= {*part.arguments}


@pytest.fixture
def session(monkeypatch, tmp_path):
    """Its folder, and a file without which its second part fails. Its first part counts its runs in another."""
    count = f"open({str(tmp_path / 'counter')!r}, 'a', encoding='utf-8').write('x')"
    fails = f"import os, sys; sys.exit(0 if os.path.exists({str(tmp_path / 'there')!r}) else 'not there')"
    some = [code(count, name="one"), code(fails, name="two"), code("", name="three", needs=("nothing",))]
    monkeypatch.setattr(gpu, "parts", lambda folder, record, on: some)
    return tmp_path / "out", tmp_path / "there"


def test_nothing_is_done_twice_and_what_failed_is_done_again(session, capsys):
    folder, there = session
    assert run(folder) == 1
    out = capsys.readouterr().out
    assert "one: passed" in out and "two: failed" in out and "not there" in out and "three: skipped" in out
    there.touch()
    assert run(folder, minutes=5.0) == 0 == run(folder)
    assert (there.parent / "counter").read_text(encoding="utf-8") == "x" and "failed" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="minutes is 0"):
        run(folder, minutes=0)


@posix
def test_an_interrupt_ends_the_part_which_may_write_what_it_has_and_all_that_follow(session, monkeypatch, capsys):
    folder, _ = session
    log, real = folder / "slow.log", psutil.Popen.wait

    def wait(self, timeout=None):
        monkeypatch.setattr(psutil.Popen, "wait", real)
        while "working" not in log.read_text(encoding="utf-8"):
            gpu.time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "parts", lambda *_: [code(SLOW, name="slow"), code("", name="next")])
    monkeypatch.setattr(psutil.Popen, "wait", wait)
    assert run(folder) == 0
    assert "kept" in log.read_text(encoding="utf-8") and [p.name for p in folder.iterdir()] == ["slow.log"]
    assert "interrupted" in capsys.readouterr().out


def test_the_summary_has_ratios_and_predictions_beside_what_was_recorded(session, capsys, monkeypatch):
    folder, _ = session
    folder.mkdir()
    monkeypatch.setattr(gpu, "device_name", lambda device: "It")
    times = {"textbook": 8.0, "no wait per step": 2.0}
    measured = [Timed("ladder", n, "cuda", 1, [s] * 10, {"hidden": 128}, {"images": 60_000}) for n, s in times.items()]
    environment = {"device_name": "NVIDIA H200", "cpu_name": "A CPU"}
    results.write(folder / "it.json", Results(environment, measured, "2026-02-01"))
    run(folder)
    out = capsys.readouterr().out
    assert "NVIDIA H200 (cuda), ladder: no wait per step is 4.00 times as fast as textbook" in out
    assert "H200: textbook, hidden 128 " in out and "in the predicted range" in out


def test_a_chapter_is_executed_into_the_folder_even_if_it_fails(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    cells = [nbformat.v4.new_code_cell(source) for source in ("print(6 * 7)", "raise ValueError('broken')")]
    source, target = tmp_path / "a.ipynb", tmp_path / "out.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), source)
    status, said = do(code(EXECUTE, source, target, seconds=200, needs=("nbclient", "ipykernel")), tmp_path, left=300)
    assert status == "failed" and "broken" in said
    first, second = nbformat.read(target, as_version=4).cells
    assert first.outputs[0].text == "42\n" and second.outputs[0].ename == "ValueError"
