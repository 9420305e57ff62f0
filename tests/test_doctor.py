"""Each state of a machine is faked; the finding must name its facts, and the remedy must be the one for that state."""

import json
from types import SimpleNamespace

import pytest
import torch

from mnist_gpu import doctor
from mnist_gpu.device import environment
from mnist_gpu.doctor import Finding, collectable, diagnose, report, works

CARD = {"name": "NVIDIA GeForce RTX 3060", "driver_version": "460.32.03", "compute_cap": "8.6"}


@pytest.fixture
def machine(monkeypatch):
    """A healthy machine with no GPU, a CUDA build of PyTorch, and data. `machine(...)` changes what is named."""

    def change(
        gpu=None, error=None, cards=(), cuda="12.8", visible=None, capability=(8, 6), built=("sm_80",), free=8 * 2**30
    ):
        found = torch.device(gpu) if gpu else None
        monkeypatch.setattr(doctor, "accelerator", lambda: found)
        monkeypatch.setattr(doctor, "kernel_error", lambda device: error if torch.device(device) == found else None)
        monkeypatch.setattr(doctor, "pick_device", lambda name: torch.device("cpu") if error or not found else found)
        monkeypatch.setattr(doctor, "describe", lambda device: f"Device: {device}")
        monkeypatch.setattr(doctor, "nvidia_smi", lambda: list(cards))
        monkeypatch.setattr(doctor, "load_mnist", lambda train: None)
        monkeypatch.setattr(doctor, "usable_cpus", lambda: 4)
        monkeypatch.setattr(doctor, "import_module", lambda name: SimpleNamespace(__version__="0.26.0"))
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: CARD["name"])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(built))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, 12 * 2**30))
        monkeypatch.setattr(torch.backends.mps, "is_built", lambda: False)
        monkeypatch.setattr(torch.xpu, "_is_compiled", lambda: False)
        monkeypatch.setattr(torch.xpu, "get_device_name", lambda device=None: "Intel Arc A770")
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    change()
    return change


def first(**state):
    """The first finding, which is about the GPU."""
    return diagnose(**state)[0]


def assert_says(finding, level, texts, remedies):
    assert finding.level == level
    for part in texts:
        assert part in finding.text
    for part in remedies:
        assert part in finding.remedy


def test_a_machine_without_a_gpu_is_healthy(machine):
    findings = diagnose()
    assert_says(findings[0], "ok", ["No GPU is here"], [])
    assert [f.level for f in findings] == ["ok"] * 5 and works(findings)
    assert findings[-1].text == "Training works here, on cpu."


def test_a_gpu_that_works_is_named_with_capability_driver_and_memory(machine):
    machine(gpu="cuda", cards=[CARD])
    findings = diagnose()
    text = "\n".join(f.text for f in findings)
    for part in (CARD["name"], "Compute capability 8.6", "driver 460.32.03", "CUDA 12.8", "8.0 of 12.0 GiB are free"):
        assert part in text
    assert {f.level for f in findings} == {"ok"} and findings[-1].text == "Training works here, on cuda."


def test_a_cpu_only_build_beside_an_nvidia_card(machine):
    machine(cards=[CARD], cuda=None)
    assert_says(
        first(), "note", [CARD["name"], torch.__version__, "built for the CPU only"], ["CUDA build", "pytorch.org"]
    )


def test_a_cpu_only_build_is_the_cause_even_where_the_card_is_hidden_too(machine):
    machine(cards=[CARD], cuda=None, visible="")
    assert_says(first(), "note", ["built for the CPU only"], ["CUDA build"])


def test_a_driver_that_is_too_old(machine):
    machine(cards=[CARD])
    texts = [CARD["name"], "460.32.03", "CUDA 12.8", "driver is too old"]
    assert_says(first(), "note", texts, ["Update the NVIDIA driver", "older CUDA"])


@pytest.mark.parametrize("visible", ["0", "0,1", "GPU-8932f937", " 0 "])
def test_a_driver_that_is_too_old_where_cuda_visible_devices_names_a_card(machine, visible):
    machine(cards=[CARD], visible=visible)
    assert_says(first(), "note", ["driver is too old"], ["Update the NVIDIA driver"])


@pytest.mark.parametrize("visible", ["", "-1", "1", "none", "-1,0"])
def test_a_gpu_hidden_by_cuda_visible_devices(machine, visible):
    machine(cards=[CARD], visible=visible)
    texts = ["1 NVIDIA GPU(s)", CARD["name"], f"CUDA_VISIBLE_DEVICES={visible!r} hides"]
    assert_says(first(), "note", texts, ["unset CUDA_VISIBLE_DEVICES"])


@pytest.mark.parametrize(
    ("capability", "built"),
    [
        ((6, 1), ["sm_75", "sm_80", "sm_90", "compute_90"]),  # older than everything built
        ((12, 0), ["sm_80", "sm_90"]),  # newer, and no PTX to compile from
        ((8, 0), ["sm_75", "sm_86"]),  # code for 8.6 does not run on 8.0
    ],
)
def test_a_card_that_this_build_has_no_code_for(machine, capability, built):
    machine(gpu="cuda", error="no kernel image is available", capability=capability, built=built)
    findings = diagnose()
    texts = [CARD["name"], f"{capability[0]}.{capability[1]}", "holds no code", *built, "falls back to the CPU"]
    assert_says(findings[0], "note", texts, ["Install a build for this card"])
    assert works(findings) and findings[-1].text == "Training works here, on cpu."


@pytest.mark.parametrize(
    ("capability", "built"),
    [
        ((8, 6), ["sm_75", "sm_80"]),  # machine code runs on newer cards of the same major version
        ((12, 0), ["sm_80", "sm_90", "compute_90"]),  # PTX is compiled for every newer card
        ((9, 0), ["sm_90a"]),
    ],
)
def test_code_that_serves_the_card_is_not_reported_as_missing(machine, capability, built):
    machine(gpu="cuda", error="unspecified launch failure", capability=capability, built=built)
    texts = ["PyTorch reports a cuda GPU", "unspecified launch failure", "falls back to the CPU"]
    assert_says(first(), "note", texts, ["Restart the machine"])
    assert "no code" not in first().text


def test_a_gpu_whose_memory_is_nearly_full(machine):
    machine(gpu="cuda", cards=[CARD], free=300 * 2**20)
    finding = next(f for f in diagnose() if "memory" in f.text)
    assert_says(
        finding, "note", ["nearly full", "300 of 12288 MiB", "about 700"], ["Shut down other notebooks", "nvidia-smi"]
    )


def test_a_gpu_whose_memory_is_so_full_that_no_kernel_runs(machine):
    machine(gpu="cuda", error="CUDA out of memory", free=2 * 2**20)
    texts = ["memory is full", "2 of 12288 MiB", "CUDA out of memory"]
    assert_says(first(), "note", texts, ["Shut down other notebooks", "nvidia-smi"])


@pytest.mark.parametrize(
    ("error", "text", "remedy"),
    [
        ("CUDA error: out of memory", "memory is full: too little to ask", "Shut down other notebooks"),
        ("CUDA error: unknown error", "no kernel runs on it: CUDA error: unknown error", "Restart"),
    ],
)
def test_a_gpu_that_does_not_even_say_how_much_memory_is_free(machine, monkeypatch, error, text, remedy):
    def fail():
        raise RuntimeError(error)

    machine(gpu="cuda", error=error)
    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    assert_says(first(), "note", [text], [remedy])


def test_apples_gpu_that_works(machine):
    machine(gpu="mps", cuda=None)
    findings = diagnose()
    assert_says(findings[0], "ok", ["1 GPU(s) of type mps, a kernel runs"], [])
    assert works(findings)


def test_apples_gpu_that_cannot_be_used(machine, monkeypatch):
    machine(cuda=None)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert_says(first(), "note", ["MPS", "cannot be used"], ["macOS 14", "Rosetta"])


def test_intels_gpu_that_works(machine):
    machine(gpu="xpu", cuda=None)
    assert_says(first(), "ok", ["of type xpu, a kernel runs", "Intel Arc A770"], [])


def test_a_build_for_intels_gpus_that_finds_none(machine, monkeypatch):
    machine(cuda=None)
    monkeypatch.setattr(torch.xpu, "_is_compiled", lambda: True)
    assert_says(first(), "note", ["Intel", "XPU", "finds none"], ["driver", "/dev/dri/render"])


@pytest.mark.parametrize("gpu", ["mps", "xpu"])
def test_another_gpu_on_which_no_kernel_runs(machine, gpu):
    machine(gpu=gpu, error="driver error 17", cuda=None)
    assert_says(first(), "note", [f"reports a {gpu} GPU", "driver error 17"], ["Restart"])


def test_more_threads_than_usable_cpus(machine, monkeypatch):
    monkeypatch.setattr(doctor, "usable_cpus", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    finding = diagnose()[1]
    assert_says(finding, "note", ["64 threads", "only 2 CPU(s)"], ["OMP_NUM_THREADS=2", "torch.set_num_threads"])


def test_as_many_threads_as_usable_cpus_are_fine(machine, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert diagnose()[1] == Finding("ok", "4 thread(s) for 4 usable CPU(s).")


@pytest.mark.parametrize("error", [FileNotFoundError("train-images is not in /data"), ValueError("wrong MD5 sum")])
def test_data_that_cannot_be_read_are_an_error(machine, monkeypatch, error):
    def fail(train):
        raise error

    monkeypatch.setattr(doctor, "load_mnist", fail)
    findings = diagnose()
    assert_says(findings[3], "error", ["MNIST cannot be read", str(error)], ["data/README.md"])
    assert not works(findings) and not any("Training works" in f.text for f in findings)


def test_a_device_that_is_not_here_is_an_error(machine, monkeypatch):
    def refuse(name):
        raise ValueError(f"device is {name!r}, but here it must be one of: auto, cpu")

    monkeypatch.setattr(doctor, "pick_device", refuse)
    findings = diagnose("cuda:7")
    assert_says(findings[-1], "error", ["'cuda:7'", "auto, cpu"], ["another device"])
    assert not works(findings)


def test_the_report_puts_each_remedy_under_its_finding():
    text = report([Finding("ok", "fine"), Finding("note", "so so", "do this"), Finding("error", "bad", "do that")])
    assert text.splitlines() == [
        "[ok]    fine",
        "[note]  so so",
        "        -> do this",
        "[ERROR] bad",
        "        -> do that",
    ]


def test_the_json_has_the_findings_the_environment_and_the_hosts_name_in_one_line(monkeypatch):
    monkeypatch.setattr(doctor.platform, "node", lambda: "seat-07")
    findings = [Finding("ok", "fine"), Finding("error", "of two\nlines, π", "do that")]
    text = collectable(findings, "cpu")
    assert len(text.splitlines()) == 1 and text.isascii()  # whatever the collecting script's locale is
    found = json.loads(text)
    assert list(found) == ["works", "environment", "findings"] and found["works"] is False
    assert found["findings"] == [
        {"level": "ok", "text": "fine", "remedy": ""},
        {"level": "error", "text": "of two\nlines, π", "remedy": "do that"},
    ]
    assert found["environment"].keys() == environment("cpu").keys() | {"host"}
    assert found["environment"]["host"] == "seat-07" and found["environment"]["device"] == "cpu"
    assert json.loads(collectable(findings[:1], "cpu"))["works"] is True


def test_the_json_of_a_device_that_is_not_here_has_the_cpus_environment():
    assert json.loads(collectable([], "cuda:77"))["environment"]["device"] == "cpu"


# torchvision


def test_a_torchvision_that_is_there_and_of_the_same_build_is_ok():
    assert any(f.level == "ok" and f.text.startswith("torchvision 0.") for f in diagnose())


@pytest.mark.parametrize("failure", ["operator torchvision::nms does not exist", "No module named 'torchvision'"])
def test_a_torchvision_that_cannot_be_imported_is_named_with_its_remedy(machine, monkeypatch, failure):
    def refuse(name):
        raise (ModuleNotFoundError if "module" in failure else RuntimeError)(failure)

    monkeypatch.setattr(doctor, "import_module", refuse)
    found = next(f for f in diagnose() if "torchvision" in f.text)
    assert_says(found, "note", [failure, "chapters 03 and 04"], ["Uninstall", "in one command"])
    assert works(diagnose())  # the default pipeline needs none
