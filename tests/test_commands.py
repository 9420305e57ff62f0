import sys

import pytest

from mnist_gpu.chapters.chapter_10 import torchrun
from mnist_gpu.measuring.commands import run_command, why


def test_a_command_gives_what_it_prints(tmp_path):
    code = "import os, sys; print(os.getcwd()); print('beside', file=sys.stderr)"
    assert run_command([sys.executable, "-c", code], cwd=tmp_path) == f"{tmp_path.resolve()}\n"


def test_a_command_that_fails_shows_its_status_and_the_end_of_what_it_said():
    code = "import sys; [print(f'line {i}', file=sys.stderr) for i in range(100)]; sys.exit(3)"
    with pytest.raises(RuntimeError) as caught:
        run_command([sys.executable, "-c", code])
    said = str(caught.value)
    assert "ended with status 3:" in said and said.endswith("line 98\nline 99")
    assert "line 85\n" in said and "line 84\n" not in said
    assert why(" \n") == "(it said nothing)"


def test_the_reason_is_not_hidden_behind_torchruns_report():
    code = "raise ValueError('the reason')"
    with pytest.raises(RuntimeError) as caught:
        run_command(torchrun(1, "--no-python", sys.executable, "-c", code))
    assert "ended with status 1:" in str(caught.value) and str(caught.value).endswith("ValueError: the reason")


def test_a_training_by_two_processes_that_fails_gives_the_first_ones_reason(tmp_path, monkeypatch):
    """The other one would say that a connection was closed, and hide it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "broken.pt").write_text("no checkpoint", encoding="utf-8")
    train = ["-m", "mnist_gpu", "train", "--device", "cpu", "--resume", "broken.pt"]
    with pytest.raises(RuntimeError, match=r"ended with status 1:\n(error: .*broken\.pt.*\n?){2}$"):
        run_command(torchrun(2, *train), cwd=tmp_path)
