"""What needs a GPU, on a simulated one: in processes of their own, since this one has to have none."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
import torch
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
# What the simulated accelerator is not, in the words of the tests that are skipped for it.
MISSING = ("needs an NVIDIA GPU", "is written for the CPU", "torch.compile generates no code for sim")


@pytest.fixture(scope="module")
def outcome(simulated_environment, tmp_path_factory):
    """The tests marked `gpu`, those of on_simulated_accelerator/ included, in one process: its exit and its report."""
    report = tmp_path_factory.mktemp("simulated") / "report.xml"
    command = [sys.executable, "-m", "pytest", "tests", "-m", "gpu and not cuda", "-rf", "-p", "no:cacheprovider"]
    command += [
        "-o",
        "addopts=--strict-markers",
        "--ignore=tests/test_in_the_browser.py",
    ]  # in one process, no notebooks
    found = subprocess.run(
        [*command, f"--junitxml={report}"],
        cwd=ROOT,
        env=simulated_environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    print(found.stdout, found.stderr)
    assert report.exists(), "it did not come to an end"
    return found.returncode, list(ElementTree.parse(report).iter("testcase"))


def test_the_tests_for_a_gpu_pass_on_the_simulated_one(outcome):
    status, cases = outcome
    failed = [f"{c.get('classname')}::{c.get('name')}" for c in cases if {"failure", "error"} & {e.tag for e in c}]
    assert not failed and status == 0  # why: see what the fixture `outcome` printed
    files = {c.get("classname") for c in cases}
    assert {"tests.on_simulated_accelerator.test_simulated", "tests.test_training", "tests.test_batches"} <= files


def test_none_of_them_is_skipped_but_for_what_the_simulated_one_is_not(outcome):
    reasons = [e.get("message") for c in outcome[1] for e in c if e.tag == "skipped"]
    assert [r for r in reasons if not r.startswith(MISSING)] == []
    assert len(reasons) < len(outcome[1]) / 4


def test_this_process_has_none():
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is None or accelerator.type != "sim"
    assert "simulated_accelerator" not in sys.modules


def test_a_notebook_and_the_programs_that_it_starts_find_it(simulated_environment, tmp_path):
    code = "import torch; print(torch.accelerator.current_accelerator(), torch.ones(2, device='sim').sum().item())"
    child = f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {code!r}], text=True))"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (code, child)])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path), env=simulated_environment)
    assert [o.text.strip() for c in notebook.cells for o in c.outputs] == ["sim 2.0"] * 2


# Times say nothing on the simulated accelerator, and there a chapter is to run, not to measure: two rounds are enough.
FEW_ROUNDS = """
from mnist_gpu.measuring import timing
timing.BLOCKS, _in_turn, _measure = 2, timing.in_turn, timing.measure
few = {"warmup": 0}
timing.in_turn = lambda sides, *, rounds=2, **o: _in_turn(sides, **o | few, rounds=min(rounds, 2))
timing.measure = lambda function, **options: _measure(function, **options | {"min_seconds": 0.001})
"""


@pytest.mark.long  # every notebook is executed without it already
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("0[1-9]_*.ipynb")), ids=lambda p: p.stem)
def test_a_chapter_runs_on_it(simulated_environment, path, tmp_path):
    notebook = nbformat.read(path, 4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FEW_ROUNDS))
    # An error in a cell is raised here. The outputs are not stored.
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path), env=simulated_environment)
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    first = next(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    assert first.startswith("Device: sim (")
    assert not [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr" and "it/s" not in o.text]
