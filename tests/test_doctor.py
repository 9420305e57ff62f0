"""Each state of a machine is faked; the finding must name its facts, and the remedy must be the one for that state."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mnist_gpu import doctor, why_no_gpu
from mnist_gpu.device import environment
from mnist_gpu.doctor import diagnose
from mnist_gpu.webgpu.gpu import Adapter

CARD = {"name": "NVIDIA GeForce RTX 3060", "driver_version": "580.95.05", "compute_cap": "8.6"}
V100 = {"name": "Tesla V100-SXM2-16GB", "compute_cap": "7.0"}
BLACKWELL = {"name": "NVIDIA GeForce RTX 5090", "compute_cap": "12.0"}


def fail(text):
    raise ValueError(text)


@pytest.fixture
def machine(monkeypatch):
    """A healthy machine with no GPU, a CUDA build of PyTorch, and data. `machine(...)` changes what is named."""

    def change(
        *, gpu=None, error=None, cards=(), cuda="13.0", hip=None, xpu=None, mps=False, capability=(8, 6),
        cuda_error="No CUDA GPUs are available", kfd="/nowhere",
    ):  # fmt: skip
        found = torch.device(gpu) if gpu else None
        here = {"capability": "8.6", "driver": "580.95.05"}
        fakes = {
            doctor: {
                "adapters": lambda: ([], ""),
                "accelerator": lambda: found,
                "kernel_error": lambda device: error if torch.device(device) == found else None,
                "pick_device": lambda name: torch.device("cpu") if error or not found else found,
                "describe": lambda device: f"Device: {device}",
                "environment": lambda device: environment("cpu") | here,
                "device_name": lambda device: "a fine GPU",
                "load_mnist": lambda train: None,
                "import_module": lambda name: SimpleNamespace(__version__="0.26.0"),
            },
            why_no_gpu: {"nvidia_smi": lambda: (list(cards), ""), "AMDS_DEVICE": Path(kfd)},
            torch.version: {"cuda": cuda, "hip": hip, "xpu": xpu},
            torch.accelerator: {"device_count": lambda: 1},
            torch.backends.mps: {"is_built": lambda: mps},
            torch.cuda: {
                "init": lambda: fail(cuda_error),
                "get_device_name": lambda: "a fine GPU",
                "get_device_capability": lambda: capability,
                "get_arch_list": lambda: ["sm_80"],
                "mem_get_info": lambda: (8 * 2**30, 12 * 2**30),
            },
        }
        for where, names in fakes.items():
            for name, value in names.items():
                monkeypatch.setattr(where, name, value)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    change()
    return change


def assert_says(finding, level, texts, remedies):
    assert finding.level == level
    assert [part for part in texts if part not in finding.text] == [], finding
    assert [part for part in remedies if part not in finding.remedy] == [], finding


@pytest.mark.parametrize(
    ("cuda", "says"),
    [(None, ""), ("13.0", "Found no NVIDIA driver on your system."), ("13.0", "No CUDA GPUs are available")],
)
def test_a_machine_without_a_gpu_is_healthy(machine, cuda, says):
    machine(cuda=cuda, cuda_error=says)
    findings = diagnose()
    assert_says(findings[0], "ok", ["No GPU is here"], [])
    assert [f.level for f in findings] == ["ok"] * 4
    assert "Training works here, on cpu" in findings[-1].text


@pytest.mark.parametrize(
    ("state", "texts"),
    [
        ({"gpu": "cuda"}, ["Compute capability 8.6", "driver 580.95.05", "CUDA 13.0", "8,192 of 12,288 MiB"]),
        ({"gpu": "cuda", "cuda": None, "hip": "6.4.1"}, ["ROCm 6.4.1"]),
        ({"gpu": "mps", "cuda": None}, ["1 GPU(s) of type mps"]),
        ({"gpu": "xpu", "cuda": None}, ["1 GPU(s) of type xpu"]),
    ],
)
def test_a_gpu_that_works_is_named_with_what_is_known_of_it(machine, state, texts):
    machine(**state)
    findings = diagnose()
    said = "\n".join(f.text for f in findings)
    assert [part for part in [*texts, "a fine GPU", f"works here, on {state['gpu']}"] if part not in said] == []
    assert {f.level for f in findings} == {"ok"} and ("CUDA" in said) == (texts[0] == "Compute capability 8.6")


@pytest.mark.parametrize(
    ("card", "driver", "cuda", "texts", "remedies"),
    [
        # A build for the CPU only
        (CARD, "580.95.05", None, ["the CPU only"], ["uninstall -y torch torchvision", "/cu130"]),
        (CARD, "535.183.01", None, ["the CPU only"], ["/cu126", "torch>=2.11,<2.15"]),
        (V100, "580.95.05", None, ["the CPU only"], ["/cu126", "torchvision>=0.26,<0.30"]),
        (BLACKWELL, "570.86.10", None, ["the CPU only"], ["to 580", "WSL", "/cu130"]),
        # A driver that is too old
        (CARD, "535.183.01", "13.0", ["CUDA 13.0", "580 or newer"], ["/cu126", "to 580"]),
        (BLACKWELL, "570.86.10", "13.2", ["CUDA 13.2", "580 or newer"], ["to 580", "/cu130"]),
        # A driver that fails for another reason
        (CARD, "580.95.05", "13.0", ["CUDA unknown error"], ["Restart"]),
    ],
)
def test_an_nvidia_card_that_pytorch_cannot_use(machine, card, driver, cuda, texts, remedies):
    machine(cards=[card | {"driver_version": driver}], cuda=cuda, cuda_error="CUDA unknown error")
    assert_says(diagnose()[0], "note", [card["name"], driver, *texts], remedies)


@pytest.mark.parametrize(("capability", "remedy"), [((7, 0), "/cu126"), ((12, 0), "/cu130")])
def test_a_card_that_this_build_has_no_code_for(machine, capability, remedy):
    machine(gpu="cuda", error="CUDA error: no kernel image is available", cards=[CARD], capability=capability)
    findings = diagnose()
    texts = ["a fine GPU", ".".join(map(str, capability)), "sm_80", "no kernel image", "falls back to the CPU"]
    assert_says(findings[0], "note", texts, ["uninstall -y torch torchvision", remedy])
    assert "Training works here, on cpu" in findings[-1].text


@pytest.mark.parametrize(
    ("state", "texts", "remedies"),
    [
        ({"gpu": "cuda", "error": "out of memory, 2 MiB"}, ["memory is full", "2 MiB"], ["Shut down", "nvidia-smi"]),
        ({"gpu": "cuda", "error": "CUBLAS_STATUS_ALLOC_FAILED"}, ["memory is full"], ["Shut down", "nvidia-smi"]),
        ({"gpu": "cuda", "error": "launch failure"}, ["launch failure", "CPU"], ["Restart", "pytorch.org"]),
        ({"gpu": "xpu", "error": "driver error 17"}, ["xpu", "driver error 17"], ["Restart", "pytorch.org"]),
        ({"mps": True}, ["MPS"], ["macOS 14", "Rosetta"]),
        ({"xpu": "20250101"}, ["Intel", "XPU"], ["driver", "/dev/dri/render"]),
        ({"hip": "6.4.1"}, ["ROCm 6.4.1"], ["/dev/kfd", "render"]),
        ({"kfd": "/"}, ["AMD GPU", torch.__version__], ["ROCm build", "pytorch.org"]),
    ],
)
def test_a_gpu_of_any_maker_that_cannot_be_used(machine, state, texts, remedies):
    machine(cuda="13.0" if state.get("gpu") == "cuda" else None, **state)
    assert_says(diagnose()[0], "note", texts, remedies)


def test_data_that_cannot_be_read_are_an_error(machine, monkeypatch):
    monkeypatch.setattr(doctor, "load_mnist", lambda train: fail("wrong MD5 sum"))
    findings = diagnose()
    assert_says(findings[-1], "error", ["MNIST", "wrong MD5 sum"], ["data/README.md"])
    assert not any("Training works" in f.text for f in findings)


def test_a_torchvision_that_cannot_be_imported_is_named_with_its_remedy(machine, monkeypatch):
    monkeypatch.setattr(doctor, "import_module", lambda name: fail("operator torchvision::nms does not exist"))
    findings = diagnose()
    assert_says(findings[1], "note", ["torchvision::nms does not exist", "pipeline"], ["Uninstall", "in one command"])
    assert "Training works" in findings[-1].text  # the default pipeline needs none


def test_gpus_through_webgpu_are_named_and_software_is_none(machine, monkeypatch):
    gpu, software = Adapter(0, "Iris Xe", "integrated", "Vulkan", 0), Adapter(1, "llvmpipe", "software", "Vulkan", 0)
    monkeypatch.setattr(doctor, "adapters", lambda: ([gpu, software], ""))
    said = [f.text for f in diagnose() if "WebGPU" in f.text]
    assert len(said) == 1 and "Iris Xe (integrated, Vulkan)" in said[0]
    monkeypatch.setattr(doctor, "adapters", lambda: ([software], "only llvmpipe"))
    (said,) = (f.text for f in diagnose() if "WebGPU" in f.text)
    assert "only llvmpipe" in said and "Training works" in diagnose()[-1].text
