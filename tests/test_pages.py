"""Text under any code page: what a command prints to a file or a pipe, what programs say to each other, and files."""

import ast
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mnist_gpu
from mnist_gpu.__main__ import spell_what_the_page_lacks
from mnist_gpu.gpu import Part, do
from mnist_gpu.measuring.commands import run_command

ROOT = Path(mnist_gpu.__file__).parents[1]
MINIMAL = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
if sys.platform == "win32":
    MINIMAL = {"PYTHONIOENCODING": "ascii"}
# What brings about the pages of China, Japan, Korea, and of a minimal system; and how µs stands there.
PAGES = {
    "gbk": ({"PYTHONIOENCODING": "gbk"}, "\N{GREEK SMALL LETTER MU}s"),
    "cp932": ({"PYTHONIOENCODING": "cp932"}, "\N{GREEK SMALL LETTER MU}s"),
    "cp949": ({"PYTHONIOENCODING": "cp949"}, "\N{GREEK SMALL LETTER MU}s"),
    "ascii": (MINIMAL, "us"),
}
# Several commands, one after the other in one process, since most of a command's time is the import of torch.
COMMANDS = "import sys; from mnist_gpu.__main__ import main; sys.exit(max(main(c.split()) for c in sys.argv[1:]))"
IN_TURN = [
    "doctor --device cpu", "train --epochs 1 --device cpu --json a.json", "predict T4", "exercises", "figure a.png",
]  # fmt: skip
SIGNS = "5 µs → 張 “é” …"
SAY = "print('5 \\u00b5s \\u2192 \\u5f35 \\u201c\\u00e9\\u201d \\u2026')"


def environment(page: str) -> dict[str, str]:
    free = {name: value for name, value in os.environ.items() if name not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    return free | {"OMP_NUM_THREADS": "1"} | PAGES[page][0]


def printed(folder: Path, page: str, *commands: str) -> str:
    """What the commands write to a file, by the page; what they write to standard error, a pipe, is empty."""
    with (folder / "printed").open("wb") as file:
        command = [sys.executable, "-c", COMMANDS, *commands]
        done = subprocess.run(command, cwd=folder, env=environment(page), stdout=file, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    return (folder / "printed").read_text(encoding=page)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_prints_to_a_file_under_every_page(tmp_path, page):
    said = printed(tmp_path, page, *IN_TURN)
    assert "Training works here" in said and "Finished Training" in said and "Drew a.png" in said and "10.3" in said
    assert re.search(rf"takes [\d,]+ {PAGES[page][1]} with 1 thread", said)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["epochs"]


def test_the_long_commands_and_what_they_start_print_under_the_poorest_page(tmp_path):
    """The minutes of `gpu` are enough for its first part."""
    said = printed(tmp_path, "ascii", "benchmark --quick --only ensemble --on cpu", "gpu out --minutes 0.69")
    assert "ensemble on cpu: " in said and "no time was left" in said


@pytest.mark.parametrize("page", ["gbk", "ascii"])
def test_a_command_prints_its_errors_to_a_pipe(tmp_path, page):
    command = [sys.executable, "-m", "mnist_gpu", "train", "--json", "nowhere/5 µs"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(page), capture_output=True)
    # In the C locale Python cannot decode its own arguments, and hands on their bytes.
    said = done.stderr.decode("utf-8" if page == "ascii" else page)
    assert done.returncode == 2 and f"there is no folder {tmp_path / 'nowhere'}" in said and "Traceback" not in said
    assert page == "ascii" or f"cannot write {Path('nowhere')}{os.sep}5 {PAGES[page][1]}" in said


@pytest.mark.parametrize(
    ("encoding", "seen"),
    [
        ("utf-8", SIGNS),
        ("gbk", "5 μs → 張 “é” …"),
        ("cp932", "5 μs → 張 “\\xe9” …"),
        ("cp949", "5 μs → 張 “\\xe9” …"),
        ("cp1252", "5 µs -> \\u5f35 “é” …"),
        ("cp437", '5 µs -> \\u5f35 "é" ...'),
        ("ascii", '5 us -> \\u5f35 "\\xe9" ...'),
    ],
)
def test_a_sign_that_a_page_has_is_printed_and_another_is_spelled(monkeypatch, encoding, seen):
    for name in ("stdout", "stderr"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, name, stream)
        spell_what_the_page_lacks()
        print(SIGNS, "\udcff", file=stream, flush=True)
        assert stream.buffer.getvalue() == f"{seen} ".encode(encoding) + b"\xff" + os.linesep.encode()


@pytest.mark.parametrize("page", PAGES)
def test_what_another_program_says_is_read_as_it_was_said(tmp_path, monkeypatch, page):
    for name, value in PAGES[page][0].items():
        monkeypatch.setenv(name, value)
    assert run_command([sys.executable, "-c", SAY]) == f"{SIGNS}\n"
    with pytest.raises(RuntimeError, match=SIGNS):
        run_command([sys.executable, "-c", f"import sys; {SAY.replace(')', ', file=sys.stderr)')}; sys.exit(1)"])
    assert do(Part("a", 60, ["-c", SAY]), tmp_path, left=100)[1] == SIGNS
    assert (tmp_path / "a.log").read_text(encoding="utf-8") == f"{SIGNS}\n"


def without_encoding(code: str, pipes: bool) -> list[int]:
    """Lines that open a file as text without its encoding, or, if `pipes`, a pipe."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and not any(k.arg == "encoding" for k in node.keywords):
            name = ast.unparse(node.func).split(".")
            constants = [
                a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)
            ]
            mode = next((c for c in constants if isinstance(c, str) and re.fullmatch("[rwaxbt+]+", c)), "")
            opens = name[-1] in ("open", "fdopen") and name != ["os", "open"] and name[0] != "Image"
            temporary = name[-1] in ("NamedTemporaryFile", "TemporaryFile") and mode
            piped = pipes and any(k.arg == "text" for k in node.keywords)
            if piped or name[-1] in ("read_text", "write_text") or ((opens or temporary) and "b" not in mode):
                found.append(node.lineno)
    return found


def test_every_file_and_pipe_is_opened_with_its_encoding():
    files = [path for folder in ("mnist_gpu", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")]
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files
        for line in without_encoding(path.read_text(encoding="utf-8"), "tests" not in path.parts)
    ]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            code = "".join(line for line in cell["source"] if not line.startswith(("!", "%")))
            if cell["cell_type"] == "code" and (lines := without_encoding(code, pipes=True)):
                wrong.append(f"{path.name}, {cell['id']}: {lines}")
    assert wrong == []
    code = "a.read_text()\nopen(a)\na.open('w')\nopen(a, 'rb')\nos.open(a)\nrun(text=True)\nTemporaryFile()"
    assert without_encoding(code, pipes=True) == [1, 2, 3, 6]
