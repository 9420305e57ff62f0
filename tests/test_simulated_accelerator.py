"""What needs a GPU, on a simulated one: in processes of their own, since this one has to have none."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
# What the simulated accelerator is not, in the words of the tests that are skipped for it.
MISSING = ("needs an NVIDIA GPU", "is written for the CPU", "torch.compile generates no code for sim")


def test_the_tests_for_a_gpu_pass_on_the_simulated_one(simulated_environment, tmp_path):
    """Those marked `gpu`, on_simulated_accelerator/ included, in one process; what is skipped needs what it has not."""
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "tests", "-m", "gpu and not cuda", "-rf", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=--strict-markers", "--ignore=tests/test_in_the_browser.py", f"--junitxml={report}"]
    found = subprocess.run(command, cwd=ROOT, env=simulated_environment, timeout=900, check=False)
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [f"{c.get('classname')}::{c.get('name')}" for c in cases if {"failure", "error"} & {e.tag for e in c}]
    assert not failed and found.returncode == 0
    files = {c.get("classname") for c in cases}
    assert {"tests.on_simulated_accelerator.test_simulated", "tests.test_training", "tests.test_batches"} <= files
    reasons = [e.get("message") for c in cases for e in c if e.tag == "skipped"]
    assert [r for r in reasons if not r.startswith(MISSING)] == [] and len(reasons) < len(cases) / 4


# Times say nothing on the simulated accelerator, and there a chapter is to run, not to measure: two rounds are enough.
FEW_ROUNDS = """
from mnist_gpu.measuring import timing
timing.BLOCKS, _in_turn, _measure = 2, timing.in_turn, timing.measure
few = {"warmup": 0}
timing.in_turn = lambda sides, *, rounds=2, **o: _in_turn(sides, **o | few, rounds=min(rounds, 2))
timing.measure = lambda function, **options: _measure(function, **options | {"min_seconds": 0.001})
"""


@pytest.mark.long  # every notebook is executed without it already
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")), ids=lambda p: p.stem)
def test_a_chapter_runs_on_it(simulated_environment, path, tmp_path):
    notebook = nbformat.read(path, 4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FEW_ROUNDS))
    # An error in a cell is raised here. The outputs are not stored.
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path), env=simulated_environment)
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    first = next(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    assert first.startswith("Device: sim (")
    assert not [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr" and "it/s" not in o.text]
