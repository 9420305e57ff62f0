"""The doctor as a command, beside programs that print what the real ones print: see foreign_programs/.

PyTorch is the real one. Where it is built for CUDA it finds the driver of foreign_programs/libcuda.c, and what it says
of that is its own. The texts of the other programs are taken from reports of users.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mnist_gpu.why_no_gpu import amd_smi, needed_driver

HERE = Path(__file__).resolve().parent / "foreign_programs"
OTHER = sys.platform != "linux" or "microsoft" in platform.release() or torch.version.hip or torch.xpu._is_compiled()
linux = pytest.mark.skipif(bool(OTHER), reason="the programs are those of Linux, beside a build for CUDA or the CPU")
cuda = pytest.mark.skipif(torch.version.cuda is None, reason="this PyTorch is not built for CUDA")
DOCTOR = ["-m", "mnist_gpu", "doctor"]


def compiled(source: Path, library: Path) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc")) or pytest.skip("a C compiler is needed")
    library.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Path | None:
    """The folder of the CUDA driver that PyTorch finds, if it looks for one."""
    folder = tmp_path_factory.mktemp("driver")
    return compiled(HERE / "libcuda.c", folder / "libcuda.so.1").parent if torch.version.cuda else folder


def run(arguments, environment) -> str:
    """What Python prints with these arguments, from the folder that the package is in."""
    options = {"capture_output": True, "text": True, "cwd": HERE.parent.parent, "timeout": 300}
    done = subprocess.run([sys.executable, *arguments], env=environment, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def beside(programs: str, driver: Path, error: int = 100, version: int = 13000) -> dict[str, str]:
    """An environment with nothing on PATH but the programs of that folder, and a CUDA driver that starts like this."""
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    fake = {"FAKE_CUDA_ERROR": str(error), "FAKE_CUDA_VERSION": str(version), "LD_LIBRARY_PATH": str(driver)}
    return {**kept, **fake, "PATH": str(HERE / programs)}


def first(text: str) -> dict[str, str]:
    """The doctor's first finding, which is about the GPU, from its JSON."""
    found = json.loads(text)["findings"]
    assert found[0]["level"] == "note" and "No GPU is here" not in text
    return found[0]


def assert_says(finding, text, remedy):
    assert [part for part in text if part not in finding["text"]] == [], finding
    assert [part for part in remedy if part not in finding["remedy"]] == [], finding


@linux
@cuda
def test_a_driver_too_old_to_know_compute_cap(driver):
    finding = first(run([*DOCTOR, "--json"], beside("driver_470", driver, error=0, version=11040)))
    needed = str(needed_driver(torch.version.cuda))
    assert_says(finding, ["GTX 1080", "470.182.03", torch.version.cuda, needed], [needed, "525", "/cu126"])


@linux
def test_a_driver_that_was_updated_while_the_old_one_is_running(driver):
    said = run(DOCTOR, beside("driver_updated", driver))
    assert said.startswith("[note]") and "No GPU is here" not in said
    note, remedy = said.splitlines()[:2]
    assert "Driver/library version mismatch" in note and "535.161" in note and "18" in note
    assert "Restart" in remedy


@linux
def test_a_driver_that_is_not_loaded(driver):
    finding = first(run([*DOCTOR, "--json"], beside("driver_not_loaded", driver)))
    assert_says(finding, ["couldn't communicate with the NVIDIA driver", "9"], ["Restart", "install the driver again"])


@linux
def test_a_driver_that_never_answers(driver):
    code = "from mnist_gpu import device, doctor; device.PROGRAM_SECONDS = 0.5; doctor.run(json=True)"
    finding = first(run(["-c", code], beside("driver_hangs", driver)))
    assert_says(finding, ["nvidia-smi", "0.5 seconds"], ["Restart"])


@linux
@cuda
def test_a_driver_that_does_not_work_after_the_computer_has_slept(driver):
    finding = first(run([*DOCTOR, "--json"], beside("driver_580", driver, error=999)))
    assert_says(finding, ["RTX 3060", "580.95.05", "CUDA unknown error"], ["Restart", "modprobe nvidia_uvm"])
    assert "too old" not in finding["text"] and "Update" not in finding["remedy"]


@linux
@cuda
def test_a_server_whose_fabric_manager_does_not_run(driver):
    finding = first(run([*DOCTOR, "--json"], beside("h100", driver, error=802)))
    assert_says(finding, ["H100", "802", "not yet initialized"], ["systemctl", "nvidia-fabricmanager"])


@linux
@cuda
def test_a_broken_driver_whose_nvidia_smi_is_not_there(driver):
    """In a container the programs may be missing: PyTorch's error is then the only sign of a card."""
    finding = first(run([*DOCTOR, "--json"], beside("nothing", driver, error=999)))
    assert_says(finding, ["CUDA unknown error"], ["Restart"])


@linux
def test_an_amd_card_beside_a_build_that_is_not_for_it(driver):
    finding = first(run([*DOCTOR, "--json"], beside("rocm_smi", driver)))
    assert_says(finding, ["Radeon RX 7900 XTX", torch.__version__], ["ROCm", "pytorch.org"])


@linux
@pytest.mark.parametrize(
    ("programs", "name"), [("rocm_smi", "AMD Radeon RX 7900 XTX"), ("amd_smi", "AMD Instinct MI300A")]
)
def test_either_program_of_amd_names_the_card(monkeypatch, programs, name):
    monkeypatch.setenv("PATH", str(HERE / programs))
    assert amd_smi() == ([name], "")


@linux
def test_two_openmp_runtimes_in_one_process(driver, tmp_path):
    """Of conda's numpy, and of PyTorch from pip. Of GCC's libgomp any number may be there."""
    (source := tmp_path / "empty.c").write_text("", encoding="utf-8")
    libraries = [compiled(source, tmp_path / folder / "libiomp5.so") for folder in ("conda", "torch")]
    libraries += [compiled(source, tmp_path / folder / "libgomp.so.1") for folder in ("conda", "torch")]
    (tmp_path / "libomp.so").symlink_to(libraries[0])  # another name of the first, which conda-forge has
    code = (
        "import ctypes, sys; from mnist_gpu import doctor; [ctypes.CDLL(p) for p in sys.argv[1:]]; doctor.run(json=1)"
    )
    said = run(["-c", code, *map(str, libraries), str(tmp_path / "libomp.so")], beside("nothing", driver))
    (finding,) = (f for f in json.loads(said)["findings"] if "OpenMP" in f["text"])
    assert finding["level"] == "note"
    assert_says(
        finding, ["2 OpenMP", *map(str, libraries[:2]), "Error #15"], ["from one place", "KMP_DUPLICATE_LIB_OK"]
    )
    assert "libgomp" not in finding["text"] and "libomp.so" not in finding["text"]


@pytest.fixture(scope="module")
def deadly(simulated_environment) -> dict[str, str]:
    """An environment in which there is a GPU whose first matrix product ends the process, as SIGSEGV does."""
    path = [str(HERE / "deadly_gpu"), simulated_environment["PYTHONPATH"]]
    return {**simulated_environment, "PYTHONPATH": os.pathsep.join(path)}


def test_a_gpu_whose_first_kernel_ends_the_process_does_not_end_the_doctors(deadly):
    said = json.loads(run([*DOCTOR, "--json"], deadly))
    assert_says(said["findings"][0], ["sim", "SIGSEGV", "CPU"], ["ROCm", "HSA_OVERRIDE_GFX_VERSION"])
    assert said["works"] and "on cpu" in said["findings"][-1]["text"]


def test_a_gpu_whose_first_kernel_ends_the_process_is_not_picked(deadly):
    code = (
        "from mnist_gpu.device import *\nsetup()\ntry: pick_device('sim:1')\nexcept ValueError as error: print(error)"
    )
    fallen_back, named = run(["-c", code], deadly).split("Device: cpu")
    assert "SIGSEGV" in fallen_back and "Using the CPU" in fallen_back
    assert "'sim:1'" in named and "SIGSEGV" in named
