"""Programs and what they say, under any code page: to a file or a pipe, and to each other."""

import os
import subprocess
import sys

import pytest

from mnist_gpu.gpu import do
from mnist_gpu.measuring.commands import run_command

# Pages that lack some sign which the commands print: those of China and Japan, and that of a minimal system.
PAGES = {
    "gbk": {"PYTHONIOENCODING": "gbk"},
    "cp932": {"PYTHONIOENCODING": "cp932"},
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
if sys.platform == "win32":
    PAGES["ascii"] = {"PYTHONIOENCODING": "ascii"}
# Several commands, one after the other in one process, since most of a command's time is the import of torch.
COMMANDS = "import sys; from mnist_gpu.__main__ import main; sys.exit(max(main(c.split()) for c in sys.argv[1:]))"
SIGNS = "5 μs → 張 “é” …"
SAY = "print('5 \\u03bcs \\u2192 \\u5f35 \\u201c\\u00e9\\u201d \\u2026')"


def environment(page: str) -> dict[str, str]:
    free = {name: value for name, value in os.environ.items() if name not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    return free | {"OMP_NUM_THREADS": "1"} | PAGES[page]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_prints_to_a_file_under_every_page(tmp_path, page):
    """The minutes of `gpu` are too few to begin."""
    train, benchmark = "train --epochs 1 --device cpu", "benchmark --only ceilings --on cpu"
    commands = ["doctor --device cpu", train, "figure a.png"]
    commands += [benchmark, "gpu out --minutes 0.5"] if page == "ascii" else []
    with (tmp_path / "printed").open("wb") as file:
        command = [sys.executable, "-c", COMMANDS, *commands]
        done = subprocess.run(command, cwd=tmp_path, env=environment(page), stdout=file, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    said = (tmp_path / "printed").read_text(encoding=page)
    assert "Training works here" in said and "Finished Training" in said and "Drew a.png" in said
    assert page != "ascii" or ("ceilings on cpu: " in said and "no time was left" in said)


def test_a_command_prints_its_errors_to_a_pipe(tmp_path):
    command = [sys.executable, "-m", "mnist_gpu", "train", "--json", "nowhere/5 μs"]
    done = subprocess.run(command, cwd=tmp_path, env=environment("ascii"), capture_output=True)
    assert done.returncode == 2 and b"error: cannot write nowhere" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_what_another_program_says_is_read_as_it_was_said(tmp_path, monkeypatch, page):
    for name, value in PAGES[page].items():
        monkeypatch.setenv(name, value)
    assert run_command([sys.executable, "-c", SAY]) == f"{SIGNS}\n"
    with pytest.raises(RuntimeError, match=SIGNS):
        run_command([sys.executable, "-c", f"import sys; {SAY.replace(')', ', file=sys.stderr)')}; sys.exit(1)"])
    assert do(["-c", SAY], 60, tmp_path / "a.log") == ("passed", SIGNS)
    assert (tmp_path / "a.log").read_text(encoding="utf-8") == f"{SIGNS}\n"


def test_a_command_that_fails_shows_its_status_and_what_it_said():
    with pytest.raises(RuntimeError, match=r"(?s)status 3.*because"):
        run_command([sys.executable, "-c", "import sys; print('because', file=sys.stderr); sys.exit(3)"])
