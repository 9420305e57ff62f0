"""The kernels, in processes of their own: this one must neither interpret Triton's kernels nor fix how it runs them."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mnist_gpu.faster import with_triton
from mnist_gpu.measuring.stored_outputs import SAID

ROOT = Path(__file__).resolve().parent.parent
needs_triton = pytest.mark.skipif(bool(with_triton.triton_missing()), reason=str(with_triton.triton_missing()))


def run_tests_of_kernels(*, interpret):
    """Runs tests/of_kernels in a process that interprets kernels, or that compiles them for a GPU."""
    command = [sys.executable, "-m", "pytest", "tests/of_kernels", "-rf", "-p", "no:cacheprovider", "-o"]
    done = subprocess.run(
        [*command, "addopts=--strict-markers"],
        cwd=ROOT,
        env=with_triton.environment(interpret=interpret),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    print(done.stdout, done.stderr)
    return done


@needs_triton
def test_every_kernel_computes_what_pytorch_does_when_it_is_interpreted():
    done = run_tests_of_kernels(interpret=True)
    assert done.returncode == 0 and " passed" in done.stdout


@needs_triton
@pytest.mark.gpu
@pytest.mark.cuda
def test_every_kernel_computes_what_pytorch_does_when_it_is_compiled():
    done = run_tests_of_kernels(interpret=False)
    assert done.returncode == 0 and " passed" in done.stdout


# Where Triton is not


def test_what_is_missing_is_said_and_nothing_else_breaks(monkeypatch):
    monkeypatch.setattr(with_triton, "find_spec", lambda name: None)
    reason = "Triton is not installed: PyTorch brings it along on Linux alone"
    assert with_triton.triton_missing() == reason and reason in with_triton.how()
    with pytest.raises(ImportError, match=reason):
        with_triton.choose()
    triton, tl = with_triton.imported()

    @triton.jit
    def kernel(x, BLOCK: tl.constexpr):
        return x

    assert kernel(3, 4) == 3 and with_triton.kernel_device().type == "cpu"


@needs_triton
def test_triton_that_was_imported_too_early_is_named():
    code = (
        "import triton\nfrom mnist_gpu.faster import with_triton\n"
        "with_triton._device_type = lambda: 'cpu'\nprint(with_triton.triton_missing())"
    )
    environment = {k: v for k, v in os.environ.items() if k != with_triton.CHOICE}
    said = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True)
    assert "Triton was imported before its interpreter was chosen: start Python anew, with TRITON_INTERPRET=1" in said


def test_importing_the_package_leaves_triton_alone():
    code = (
        "import sys, mnist_gpu.exercises.checking, mnist_gpu.measuring.compiled_kernels; print('triton' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "False"


@pytest.mark.parametrize(("value", "expected"), [(True, "1"), (False, "0")])
def test_the_environment_of_another_process(monkeypatch, value, expected):
    monkeypatch.setenv("ANYTHING", "stays")
    found = with_triton.environment(interpret=value)
    assert found["TRITON_INTERPRET"] == expected and found["ANYTHING"] == "stays"


WITHOUT_TRITON = "from mnist_gpu.faster import with_triton; with_triton.find_spec = lambda name: None"


def test_the_chapter_runs_to_its_end_without_triton_and_says_so(tmp_path):
    notebook = nbformat.read(ROOT / "notebooks" / "09_a_kernel_of_your_own.ipynb", 4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(WITHOUT_TRITON))
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))  # raises a cell's error
    said = "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    assert "No kernel can run here: Triton is not installed" in said
    assert said.count("not checked") == said.count("not answered yet") == 6
    # What was stored is shown instead, text and pictures.
    assert said.count(SAID) > 15 and "Stored with the chapter, not run here:\nimages" in said
    pictures = [
        o for c in notebook.cells if c.cell_type == "code" for o in c.outputs if "image/png" in o.get("data", {})
    ]
    assert len(pictures) > 5
