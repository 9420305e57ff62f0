"""The doctor as a command, beside programs that print what the real ones print: see foreign_programs/.

PyTorch is the real one. Where it is built for CUDA it finds the driver of foreign_programs/libcuda.c, and what it says
of that is its own. The texts of the other programs are taken from reports of users.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent / "foreign_programs"
OTHER = sys.platform != "linux" or "microsoft" in platform.release() or torch.version.hip or torch.version.xpu
linux = pytest.mark.skipif(bool(OTHER), reason="the programs are those of Linux, beside a build for CUDA or the CPU")
cuda = pytest.mark.skipif(torch.version.cuda is None, reason="this PyTorch is not built for CUDA")
DOCTOR = ["-m", "mnist_gpu", "doctor"]


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Path:
    """The folder of the CUDA driver that PyTorch finds, if it looks for one."""
    folder = tmp_path_factory.mktemp("driver")
    if torch.version.cuda:
        compiler = shutil.which(os.environ.get("CC", "cc")) or pytest.skip("a C compiler is needed")
        command = [compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", HERE / "libcuda.c"]
        subprocess.run(command, check=True)
    return folder


def run(arguments, environment) -> str:
    """What Python prints with these arguments, from the folder that the package is in."""
    options = {"capture_output": True, "text": True, "cwd": HERE.parent.parent, "timeout": 300}
    done = subprocess.run([sys.executable, *arguments], env=environment, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_says(report, text, remedy):
    """Of the first finding."""
    first, _, what_to_do = report.split("\n[ok]")[0].partition("-> ")
    assert "[note] " in first and [part for part in text if part not in first] == [], report
    assert [part for part in remedy if part not in what_to_do] == [], report


# The folder of programs on PATH, the number that the driver starts with (libcuda.c), what is said, parts of the remedy
ANY_BUILD = [
    ("driver_updated", 100, ["Driver/library version mismatch", "535.161", "18"], ["Restart"]),
    ("driver_not_loaded", 100, ["communicate with the NVIDIA driver", "9"], ["Restart", "install the newest"]),
    ("driver_470", 100, ["nvidia-smi", "compute_cap", "not a valid field"], ["newest NVIDIA driver"]),
    ("driver_hangs", 100, ["nvidia-smi", "2 seconds"], ["Restart"]),
]
BUILT_FOR_CUDA = [
    ("driver_580", 999, ["RTX 3060", "580.95.05", "CUDA unknown error"], ["Restart", "modprobe nvidia_uvm"]),
    ("h100", 802, ["H100", "802", "not yet initialized"], ["systemctl", "nvidia-fabricmanager"]),
    ("h100", 100, ["8 NVIDIA GPU(s)", "CUDA_VISIBLE_DEVICES='' hides"], ["unset CUDA_VISIBLE_DEVICES"]),
    ("nothing", 999, ["CUDA unknown error"], ["Restart"]),  # a container may lack nvidia-smi
]


@linux
@pytest.mark.parametrize(
    ("programs", "error", "text", "remedy"), [*ANY_BUILD, *(pytest.param(*c, marks=cuda) for c in BUILT_FOR_CUDA)]
)
def test_the_doctor_names_what_is_wrong_and_its_remedy(driver, programs, error, text, remedy):
    fake = {"FAKE_CUDA_ERROR": str(error), "FAKE_CUDA_VERSION": "13000"}
    here = os.environ | fake | {"LD_LIBRARY_PATH": str(driver), "PATH": str(HERE / programs)}
    here.pop("CUDA_VISIBLE_DEVICES", None)
    if "CUDA_VISIBLE_DEVICES" in text[-1]:
        here["CUDA_VISIBLE_DEVICES"] = ""
    code = "from mnist_gpu import device, doctor; device.PROGRAM_SECONDS = 2; doctor.run()"
    assert_says(run(["-c", code] if programs == "driver_hangs" else DOCTOR, here), text, remedy)


def test_a_gpu_whose_first_kernel_ends_the_process_as_sigsegv_does_not_end_the_doctors(simulated_environment):
    path = f"{HERE / 'deadly_gpu'}{os.pathsep}{simulated_environment['PYTHONPATH']}"
    said = run(DOCTOR, {**simulated_environment, "PYTHONPATH": path})
    assert_says(said, ["sim", "SIGSEGV", "CPU"], ["ROCm", "HSA_OVERRIDE_GFX_VERSION"])
    assert "Training works here, on cpu" in said.splitlines()[-1]
