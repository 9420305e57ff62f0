"""Chapter 10, in processes of their own: this one must neither interpret Triton's kernels nor fix how it runs them.

What is tested there: ../of_kernels, and of ./test_answers.py the chapter's answers.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_gpu.faster import with_triton
from mnist_gpu.measuring.processes import process

ROOT = Path(__file__).resolve().parents[2]
needs_triton = pytest.mark.skipif(bool(with_triton.triton_missing()), reason=str(with_triton.triton_missing()))


@needs_triton
@pytest.mark.parametrize(
    ("interpret", "chosen"),
    [
        (True, "10 or of_kernels"),
        # Wrong answers are interpreted in any case.
        pytest.param(False, "(10 or of_kernels) and not a_wrong_answer", marks=[pytest.mark.gpu, pytest.mark.cuda]),
    ],
    ids=["interpreted", "compiled"],
)
def test_kernels_compute_what_pytorch_does_and_answers_are_told_apart(interpret, chosen):
    files = ["tests/of_kernels", "tests/chapters/test_answers.py", "-k", chosen, "-rf", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *files, "-o", "addopts=--strict-markers"]
    own = {"cwd": ROOT, "env": with_triton.environment(interpret=interpret)}
    done = subprocess.run(command, **own, capture_output=True, text=True, timeout=600, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and " passed" in done.stdout


@needs_triton
@pytest.mark.parametrize("interpret", [True, False])
def test_a_process_runs_kernels_as_it_is_told_and_this_one_stays_as_it_was(interpret, monkeypatch, tmp_path):
    file = tmp_path / "a_program.py"  # as Triton's own file is the program of a notebook that has interpreted a kernel
    file.write_text("raise SystemExit('it was imported')", encoding="utf-8")
    before, program = dict(os.environ), sys.modules["__main__"]
    monkeypatch.setitem(vars(program), "__file__", str(file))
    monkeypatch.setitem(vars(program), "__spec__", None)
    with process(with_triton.environment(interpret=interpret) | {"OF_THIS_TEST": "there"}) as call:
        assert os.environ == before and sys.modules["__main__"] is program
        assert call(with_triton.interpreted) is interpret and call(os.getenv, "OF_THIS_TEST") == "there"
        with pytest.raises(ZeroDivisionError):
            call(divmod, 1, 0)
        with pytest.raises(RuntimeError):
            call(os._exit, 3)


def test_importing_the_chapter_leaves_triton_alone_and_its_kernels_say_why_they_cannot_be(monkeypatch):
    code = "import sys, mnist_gpu.chapters.chapter_10; print('triton' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "False"
    monkeypatch.setattr(with_triton, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="Triton is not installed"):
        with_triton.imported()
