"""What runs everything that only a GPU can show: its parts, here small programs, and how each of them may end."""

import json
import signal
import sys

import pytest
import torch

from mnist_gpu.__main__ import main
from mnist_gpu.measuring import on_gpu, results
from mnist_gpu.measuring.on_gpu import EXECUTE, Done, Part, do, parts, record_of
from mnist_gpu.measuring.results import Results, Timed

SLOW = """
import sys, time
try:
    print("working", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    open(sys.argv[1], "w", encoding="utf-8").write("what it had")
    print("kept")
"""


def code(text, *arguments):
    return ["-c", text, *map(str, arguments)]


def test_a_part_passes_or_fails_and_what_it_prints_is_kept(tmp_path):
    done = do(Part("Some Part", code("print('one'); print('two')"), 60), tmp_path, left=100)
    assert done[:2] == ("Some Part", "passed") and done.said == "two" and done.seconds > 0
    assert (tmp_path / "some-part.log").read_text(encoding="utf-8") == "one\ntwo\n"
    done = do(Part("b", code("raise SystemExit('because')"), 60), tmp_path, left=100)
    assert (done.status, done.said) == ("failed", "because")
    assert do(Part("c", code(""), 60), tmp_path, left=100).said == "it printed nothing"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no interrupt for another program")
@pytest.mark.parametrize(("seconds", "left"), [(on_gpu.WORTH, 100), (100, on_gpu.WORTH)])
def test_a_part_whose_time_is_up_may_write_what_it_has(tmp_path, monkeypatch, seconds, left):
    monkeypatch.setattr(on_gpu, "WORTH", 1)
    kept = tmp_path / "kept"
    done = do(Part("slow", code(SLOW, kept), min(seconds, 5)), tmp_path, left=min(left, 5))
    assert done.status == "stopped" and done.said == "kept" and kept.read_text(encoding="utf-8") == "what it had"
    assert 4 < done.seconds < 60


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no interrupt for another program")
def test_a_part_may_write_what_it_has_also_where_a_shell_has_started_this_in_the_background(tmp_path, monkeypatch):
    """A script's shell makes what it starts with & deaf to interrupts, and what that starts in turn."""
    monkeypatch.setattr(on_gpu, "WORTH", 1)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = do(Part("slow", code(SLOW, tmp_path / "kept"), 5), tmp_path, left=5)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # this program stays as it was started
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.status, done.said) == ("stopped", "kept")


def test_a_part_that_does_not_stop_is_ended_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(on_gpu, "GRACE", 1)
    deaf = "import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    child = "import time; time.sleep(300)"
    text = deaf + f"p = subprocess.Popen([sys.executable, '-c', {child!r}]); print(p.pid, flush=True); p.wait()"
    done = do(Part("deaf", code(text), 3), tmp_path, left=100)
    assert done.status == "stopped" and done.seconds < 60
    assert not on_gpu.psutil.pid_exists(int(done.said)) or on_gpu.psutil.Process(int(done.said)).status() == "zombie"


def test_what_is_not_installed_is_skipped_by_name_and_without_time_nothing_begins(tmp_path):
    done = do(Part("a", code("print(1)"), 60, ("json", "no_such_module")), tmp_path, left=100)
    assert done == Done("a", "skipped", 0.0, "no_such_module not installed here")
    assert do(Part("a", code("print(1)"), 60), tmp_path, left=1).said == "no time was left"
    assert list(tmp_path.iterdir()) == []


def test_the_parts_begin_with_what_is_worth_most_and_each_has_a_limit(tmp_path):
    names = [part.name for part in parts(tmp_path, torch.device("cpu"))]
    assert names[:4] == ["doctor", "tests", "ladder", "the rest of the benchmark"]
    chapters = [n.removeprefix("chapter ") for n in names if n.startswith("chapter")]
    assert chapters == ["07", "06", "09", "08", "05", "01", "03"]
    assert len(set(names)) == len(names) and "the CPU's ladder" not in names
    for part in parts(tmp_path, torch.device("cpu")):
        assert 30 < part.seconds <= 600
        if "benchmark" in part.arguments:
            assert str(record_of(tmp_path, torch.device("cpu"))) in part.arguments and "--append" in part.arguments


@pytest.fixture
def session(monkeypatch, tmp_path):
    """Runs the command with small parts: one that counts its runs, one that fails until a file is there."""
    counter, there = tmp_path / "counter", tmp_path / "there"
    count = f"open({str(counter)!r}, 'a', encoding='utf-8').write('x')"
    fails = f"import os, sys; sys.exit(0 if os.path.exists({str(there)!r}) else 'not there')"
    some = [
        Part("one", code(count), 60),
        Part("two", code(fails), 60),
        Part("three", code("print(3)"), 60, ("nothing",)),
    ]
    monkeypatch.setattr(on_gpu, "parts", lambda folder, device: iter(some))
    return tmp_path / "out", counter, there


def test_a_session_ends_with_a_summary_and_goes_on_with_what_is_left(session, capsys):
    folder, counter, there = session
    assert main(["gpu", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "two failed: not there" in out and "three skipped: nothing not installed here" in out
    assert [d[1] for d in json.loads((folder / "parts.json").read_text(encoding="utf-8"))] == [
        "passed",
        "failed",
        "skipped",
    ]
    there.touch()
    assert main(["gpu", str(folder), "--minutes", "5"]) == 0
    assert counter.read_text(encoding="utf-8") == "x"  # what had passed was not done again
    assert "two failed" not in capsys.readouterr().out
    assert main(["gpu", str(folder), "--minutes", "0"]) == 2


def test_an_interrupt_ends_the_part_and_all_that_follow(session, capsys, monkeypatch):
    folder, _, _ = session
    folder.mkdir()
    before = [Done("three", "passed", 1.0, "from an earlier run")]
    (folder / "parts.json").write_text(json.dumps(before), encoding="utf-8")
    once = on_gpu.do

    def interrupted(part, folder, left):
        if part.name == "two":
            raise KeyboardInterrupt
        return once(part, folder, left)

    monkeypatch.setattr(on_gpu, "do", interrupted)
    assert main(["gpu", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "one: passed" in out and "interrupted; keeping what is finished" in out and "three" not in out
    assert {d[0] for d in json.loads((folder / "parts.json").read_text(encoding="utf-8"))} == {"one", "three"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no interrupt for another program")
def test_an_interrupted_part_may_write_what_it_has_and_is_over(tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    real, waits = on_gpu.subprocess.Popen.wait, []

    def wait(self, timeout=None):
        waits.append(timeout)
        if len(waits) > 1:
            return real(self, timeout)
        while "working" not in (tmp_path / "slow.log").read_text(encoding="utf-8"):
            on_gpu.time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(on_gpu.subprocess.Popen, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        do(Part("slow", code(SLOW, kept), 60), tmp_path, left=100)
    assert kept.read_text(encoding="utf-8") == "what it had"


def test_the_summary_has_ratios_and_predictions_beside_what_was_recorded(session, capsys):
    folder, *_ = session
    folder.mkdir()
    device = torch.device("cpu")
    times = {"textbook": 8.0, "no wait per step": 2.0}
    found = [Timed("ladder", n, "cuda", 1, [s] * 10, {"hidden": 128}, {"images": 60_000}) for n, s in times.items()]
    environment = {"device_name": "NVIDIA H200", "cpu_name": "A CPU"}
    results.write(record_of(folder, device), Results(environment, found, "2026-02-01"))
    main(["gpu", str(folder)])
    out = capsys.readouterr().out
    assert "NVIDIA H200 (cuda), ladder: no wait per step is 4.00 times as fast as textbook" in out
    assert "H200: textbook, hidden 128" in out and "measured times lie in the predicted range." in out


def test_a_chapter_is_executed_into_the_folder_even_if_it_fails(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    cells = [nbformat.v4.new_code_cell(source) for source in ("print(6 * 7)", "raise ValueError('broken')")]
    source, target = tmp_path / "a.ipynb", tmp_path / "out.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), source)
    done = do(Part("chapter", code(EXECUTE, source, target), 200, ("nbclient", "ipykernel")), tmp_path, left=300)
    assert done.status == "failed" and "broken" in done.said
    first, second = nbformat.read(target, as_version=4).cells
    assert first.outputs[0].text == "42\n" and second.outputs[0].ename == "ValueError"
