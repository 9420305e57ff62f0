"""What runs everything that only a GPU can show: its parts, here small programs, and how each of them may end."""

import signal
import sys

import psutil
import pytest

from mnist_gpu import gpu
from mnist_gpu.gpu import EXECUTE, do, parts, run
from mnist_gpu.measuring import results
from mnist_gpu.measuring.results import Results, Timed

SLOW = """
import os, signal, sys, time
try:
    if sys.argv[1:]:
        os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
except KeyboardInterrupt:
    print("kept μ")
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no interrupt for another program")


@pytest.fixture(autouse=True)
def log(monkeypatch, tmp_path):
    """Of a part. Parts are begun and ended quickly here."""
    monkeypatch.setattr(gpu, "WORTH", 1)
    monkeypatch.setattr(gpu, "GRACE", 3)
    return tmp_path / "a.log"


def test_a_part_passes_or_fails_and_what_it_prints_is_kept(log):
    assert do(["-c", "print('one'); print('two')"], 60, log) == ("passed", "two") and "one\n" in log.read_text()
    assert do(["-c", "raise SystemExit('because')"], 60, log) == ("failed", "because")


@posix
def test_a_part_whose_time_is_up_may_write_what_it_has_and_is_ended_with_its_children(log):
    assert do(["-c", SLOW], 3, log) == ("stopped", "kept μ")
    deaf = "import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    child = "[sys.executable, '-c', 'import time; time.sleep(300)']"
    status, pid = do(["-c", f"{deaf} p = subprocess.Popen({child}); print(p.pid, flush=True); p.wait()"], 3, log)
    assert status == "stopped"
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def session(monkeypatch, tmp_path):
    """Its folder, and a file without which its second part fails. Its first part counts its runs in another."""
    count = f"open({str(tmp_path / 'counter')!r}, 'a', encoding='utf-8').write('x')"
    fails = f"import os, sys; sys.exit(0 if os.path.exists({str(tmp_path / 'there')!r}) else 'not there')"
    some = [("one", 60, ["-c", count]), ("two", 60, ["-c", fails])]
    monkeypatch.setattr(gpu, "parts", lambda folder, record, on: some)
    return tmp_path / "out", tmp_path / "there"


def test_nothing_is_done_twice_and_what_failed_is_done_again(session, capsys):
    folder, there = session
    assert run(folder) == 1
    out = capsys.readouterr().out
    assert "one: passed" in out and "two: failed" in out and "not there" in out
    there.touch()
    assert run(folder, minutes=5.0) == 0 == run(folder)
    assert (there.parent / "counter").read_text(encoding="utf-8") == "x" and "failed" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="minutes is 0"):
        run(folder, minutes=0)
    assert run(there.parent / "new", minutes=0.1) == 0 and "skipped" in capsys.readouterr().out
    assert not [*(there.parent / "new").iterdir()]  # without time nothing begins


def test_the_parts_are_measured_where_they_are_asked_for_into_one_record(tmp_path):
    for on in ("gpu", "cpu"):
        every = parts(tmp_path, tmp_path / "it.json", on)
        assert (every[-1][0] == "cpu") == (on == "gpu") and all(30 < seconds <= 600 for _, seconds, _ in every)
        for name, _, arguments in every:
            if "benchmark" in arguments:
                assert {tmp_path / "it.json", "cpu" if name == "cpu" else on} <= {*arguments}


@posix
def test_an_interrupt_ends_the_part_which_may_write_what_it_has_and_all_that_follow(session, monkeypatch, capsys):
    """Also where a script's shell has started this with &, deaf to interrupts."""
    monkeypatch.setattr(gpu, "parts", lambda *_: [("slow", 60, ["-c", SLOW, "interrupt"]), ("next", 60, ["-c", ""])])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert run(session[0]) == 0
    assert "interrupted" in capsys.readouterr().out and [p.name for p in session[0].iterdir()] == ["slow.log"]
    assert "kept" in (session[0] / "slow.log").read_text(encoding="utf-8")


def test_the_summary_has_ratios_and_predictions_beside_what_was_recorded(session, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "device_name", lambda device: "It")
    (folder := session[0]).mkdir()
    times = {"textbook": 8.0, "no wait per step": 2.0}
    measured = [Timed("ladder", n, "cuda", 1, [s] * 10, {"hidden": 128}, {"images": 60_000}) for n, s in times.items()]
    results.write(folder / "it.json", Results({"device_name": "NVIDIA H200"}, measured, "2026-02-01"))
    run(folder)
    out = capsys.readouterr().out
    assert "no wait per step is 4.00 times as fast as textbook" in out
    assert "H200: textbook" in out and "predicted" in out


def test_a_chapter_is_executed_into_the_folder_even_if_it_fails(tmp_path, log):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    cells = [nbformat.v4.new_code_cell(source) for source in ("print(6 * 7)", "raise ValueError('broken')")]
    source, target = tmp_path / "a.ipynb", tmp_path / "out.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), source)
    status, said = do(["-c", EXECUTE, source, target], 200, log)
    assert status == "failed" and "broken" in said
    first, second = nbformat.read(target, as_version=4).cells
    assert first.outputs[0].text == "42\n" and second.outputs[0].ename == "ValueError"
