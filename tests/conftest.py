"""Fixtures that several test files use."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

# Threads that wait for each other sleep, in notebooks and programs that the tests start. By default they spin, which
# beside another busy process makes two threads several times slower (see mnist_gpu.device).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from recorded import record_on_the_cpu

from mnist_gpu.data import CHECKSUMS, data_root, load_mnist
from mnist_gpu.device import accelerator
from mnist_gpu.faster.with_triton import CHOICE, triton_missing

# A shell that starts the tests with & makes them, and what they start, deaf to interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def compile_anew(tmp_path_factory):
    """torch.compile keeps code in the home folder, and takes it for its own where another machine has compiled it."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("compiled"))


TESTS = Path(__file__).resolve().parent

# The tests that need the simulated accelerator run in a process of their own: see test_simulated_accelerator.py.
simulated = accelerator() is not None and accelerator().type == "sim"
collect_ignore = [] if simulated else ["on_simulated_accelerator"]
# So do those of the kernels, in a process for which it has been said how Triton is to run them: see test_chapter_10.py.
if CHOICE not in os.environ:
    collect_ignore.append("of_kernels")


def pytest_collection_modifyitems(items):
    """Chapter 10 stops in its first cell where Triton is missing."""
    for item in items:
        if item.path.name.startswith("10_") and (reason := triton_missing()):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_setup(item):
    found = accelerator()
    if item.get_closest_marker("gpu") and found is None:
        pytest.skip("there is no GPU here")
    if item.get_closest_marker("cuda") and (found is None or found.type != "cuda"):
        pytest.skip("there is no NVIDIA GPU here")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Every test begins with one thread, whatever the test before it set, and may set two, also where one CPU is."""
    torch.set_num_threads(1)
    if os.cpu_count() == 1:
        monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.fixture
def gpu() -> torch.device:
    """The GPU, for the tests marked `gpu`."""
    return accelerator()


@pytest.fixture
def cuda_graphs(monkeypatch):
    """CUDA graphs on the CPU: see recorded.py."""
    return record_on_the_cpu(monkeypatch)


@pytest.fixture(scope="session")
def simulated_environment() -> dict[str, str]:
    """Environment variables under which Python programs, and what they start, find the simulated accelerator.

    It takes the place of the machine's own. It is compiled here, so that no program's time limit has to include that.
    """
    if not shutil.which(os.environ.get("CXX", "g++")):
        pytest.skip("the simulated accelerator needs a C++ compiler")
    before, autoload = os.environ.get("PYTHONPATH", ""), TESTS / "simulated_accelerator" / "autoload"
    path = os.pathsep.join([str(TESTS), str(autoload), before]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", "import torch; torch.sim"], env=environment, check=True, timeout=600)
    return environment


@pytest.fixture(scope="session")
def mnist():
    """The training set: images [60000, 28, 28] uint8, labels [60000] int64."""
    return load_mnist(train=True)


@pytest.fixture(scope="session")
def mnist_test():
    """The test set: images [10000, 28, 28] uint8, labels [10000] int64."""
    return load_mnist(train=False)


def copy_archives(root):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in CHECKSUMS:
        shutil.copyfile(data_root() / "MNIST" / "raw" / name, raw / name)
    return root


@pytest.fixture
def archives(tmp_path):
    """A folder of its own with a copy of the four archives in MNIST/raw."""
    return copy_archives(tmp_path / "data")


@pytest.fixture(scope="session")
def unpacking_root(tmp_path_factory):
    """The same, where torchvision's own data set may unpack them."""
    return copy_archives(tmp_path_factory.mktemp("torchvision") / "data")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("there is no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
