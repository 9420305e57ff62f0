"""The kernels, in processes of their own: this one must neither interpret Triton's kernels nor fix how it runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

from mnist_gpu.faster import with_triton

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
