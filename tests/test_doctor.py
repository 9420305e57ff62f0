"""Each state of a machine is faked; the finding must name its facts, and the remedy must be the one for that state."""

import json
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mnist_gpu import doctor, why_no_gpu
from mnist_gpu.device import environment
from mnist_gpu.doctor import Finding, collectable, diagnose, report, works

CARD = {"name": "NVIDIA GeForce RTX 3060", "driver_version": "580.95.05", "compute_cap": "8.6"}


def fail(text):
    raise RuntimeError(text)


@pytest.fixture
def machine(monkeypatch):
    """A healthy machine with no GPU, a CUDA build of PyTorch, and data. `machine(...)` changes what is named."""

    def change(
        *, gpu=None, error=None, cards=(), cuda="13.0", hip=None, visible=None, capability=(8, 6), built=("sm_80",),
        free=8 * 2**30, cuda_error="CUDA unknown error", system=("Linux", "6.8.0-45-generic", "x86_64"),
    ):  # fmt: skip
        found = torch.device(gpu) if gpu else None
        monkeypatch.setattr(doctor, "accelerator", lambda: found)
        monkeypatch.setattr(doctor, "kernel_error", lambda device: error if torch.device(device) == found else None)
        monkeypatch.setattr(doctor, "pick_device", lambda name: torch.device("cpu") if error or not found else found)
        monkeypatch.setattr(doctor, "describe", lambda device: f"Device: {device}")
        monkeypatch.setattr(doctor, "nvidia_smi", lambda: (list(cards), ""))
        monkeypatch.setattr(doctor, "ends_its_process", lambda device: None)
        monkeypatch.setattr(why_no_gpu, "nvidia_smi", lambda: (list(cards), ""))
        monkeypatch.setattr(why_no_gpu, "ask_driver", lambda *command: ("", ""))
        monkeypatch.setattr(why_no_gpu, "AMDS_DEVICE", Path("/nowhere"))
        for function, answer in zip(("system", "release", "machine"), system, strict=True):
            monkeypatch.setattr(platform, function, lambda answer=answer: answer)
        monkeypatch.setattr(doctor, "load_mnist", lambda train: None)
        monkeypatch.setattr(doctor, "usable_cpus", lambda: 4)
        monkeypatch.setattr(doctor, "import_module", lambda name: SimpleNamespace(__version__="0.26.0"))
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.cuda, "init", lambda: fail(cuda_error))
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


@pytest.mark.parametrize(
    ("cuda", "says"),
    [(None, ""), ("13.0", "Found no NVIDIA driver on your system."), ("13.0", "No CUDA GPUs are available")],
)
def test_a_machine_without_a_gpu_is_healthy(machine, cuda, says):
    machine(cuda=cuda, cuda_error=says)
    findings = diagnose()
    assert_says(findings[0], "ok", ["No GPU is here"], [])
    assert [f.level for f in findings] == ["ok"] * 5 and works(findings)
    assert findings[-1].text == "Training works here, on cpu."


def test_a_gpu_that_works_is_named_with_capability_driver_and_memory(machine):
    machine(gpu="cuda", cards=[CARD])
    findings = diagnose()
    text = "\n".join(f.text for f in findings)
    for part in (CARD["name"], "Compute capability 8.6", "driver 580.95.05", "CUDA 13.0", "8.0 of 12.0 GiB are free"):
        assert part in text
    assert {f.level for f in findings} == {"ok"} and findings[-1].text == "Training works here, on cuda."


def test_an_amd_gpu_that_works_is_not_said_to_be_one_for_cuda(machine):
    machine(gpu="cuda", cuda=None, hip="6.4.1")
    text = "\n".join(f.text for f in diagnose())
    assert "ROCm 6.4.1" in text and "CUDA" not in text


OLD = {"name": "Tesla V100-SXM2-16GB", "compute_cap": "7.0"}
NEW = {"name": "NVIDIA GeForce RTX 5090", "compute_cap": "12.0"}
TURING_ON = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")


@pytest.mark.parametrize(
    ("card", "driver", "remedies"),
    [
        (CARD, "580.95.05", ["/cu130", "uninstall"]),
        (CARD, "535.183.01", ["/cu126", "torch>=2.11,<2.15"]),
        (OLD, "580.95.05", ["/cu126", "torchvision>=0.26,<0.30"]),
        (NEW, "570.86.10", ["to 580", "/cu130"]),
    ],
)
def test_a_cpu_only_build_beside_an_nvidia_card(machine, card, driver, remedies):
    machine(cards=[card | {"driver_version": driver}], cuda=None)
    assert_says(first(), "note", [card["name"], torch.__version__, "built for the CPU only"], remedies)


def test_a_cpu_only_build_is_the_cause_even_where_the_card_is_hidden_too(machine):
    machine(cards=[CARD], cuda=None, visible="")
    assert_says(first(), "note", ["built for the CPU only"], ["pip install torch torchvision"])


@pytest.mark.parametrize(
    ("card", "driver", "cuda", "needed", "remedies", "no_remedies"),
    [
        (CARD, "535.183.01", "13.0", "580", ["to 580", "/cu126"], ["WSL"]),
        (OLD, "535.183.01", "13.0", "580", ["/cu126"], ["Update"]),  # a newer driver brings no code for it
        (NEW, "570.86.10", "13.2", "580", ["to 580"], ["install"]),
        (
            {"name": "NVIDIA GeForce GTX 780"},
            "470.182.03",
            "13.0",
            "580",
            ["to 580", "to 525", "/cu126"],
            [],
        ),
        ({"name": "NVIDIA GeForce GTX 1080"}, "470.182.03", "12.6", "525", ["to 525"], ["install"]),
    ],
)
def test_a_driver_that_is_too_old(machine, card, driver, cuda, needed, remedies, no_remedies):
    machine(cards=[card | {"driver_version": driver}], cuda=cuda, built=TURING_ON)
    found = first()
    assert_says(found, "note", [card["name"], driver, f"CUDA {cuda}", needed], remedies)
    assert [part for part in no_remedies if part in found.remedy] == []


def test_in_wsl_the_driver_is_the_one_of_windows(machine):
    wsl = ("Linux", "5.15.167.4-microsoft-standard-WSL2", "x86_64")
    machine(cards=[CARD | {"driver_version": "551.61"}], system=wsl, built=TURING_ON)
    assert_says(first(), "note", ["551.61", "580"], ["of Windows", "none inside WSL"])
    machine(cards=[CARD | {"driver_version": "526.47"}], system=wsl, cuda="12.6")  # on Linux 525 is enough
    assert_says(first(), "note", ["526.47", "528"], ["of Windows"])
    machine(cards=[CARD], system=wsl)
    assert_says(first(), "note", ["CUDA unknown error"], ["of Windows", "wsl --shutdown"])
    assert "modprobe" not in first().remedy


@pytest.mark.parametrize("visible", [None, "0", "0,1", "GPU-8932f937", " 0 "])
def test_a_driver_that_is_new_enough_and_does_not_work(machine, visible):
    machine(cards=[CARD], visible=visible)
    assert_says(first(), "note", [CARD["name"], "580.95.05", "CUDA unknown error"], ["Restart"])


@pytest.mark.parametrize("visible", ["", "-1", "1", "none", "-1,0"])
def test_a_gpu_hidden_by_cuda_visible_devices(machine, visible):
    machine(cards=[CARD], visible=visible)
    texts = ["1 NVIDIA GPU(s)", CARD["name"], f"CUDA_VISIBLE_DEVICES={visible!r} hides"]
    assert_says(first(), "note", texts, ["unset CUDA_VISIBLE_DEVICES"])


@pytest.mark.parametrize(
    ("capability", "built", "index"),
    [
        ((6, 0), [*TURING_ON, "compute_90"], "/cu126"),  # P100, older than everything built
        ((7, 0), TURING_ON, "/cu126"),  # V100
        ((12, 0), ["sm_80", "sm_90"], "/cu130"),  # newer, and no PTX to compile from
        ((8, 0), ["sm_75", "sm_86"], "/cu130"),  # code for 8.6 does not run on 8.0
    ],
)
def test_a_card_that_this_build_has_no_code_for(machine, capability, built, index):
    machine(gpu="cuda", error="no kernel image is available", cards=[CARD], capability=capability, built=built)
    findings = diagnose()
    texts = [CARD["name"], f"{capability[0]}.{capability[1]}", "holds no code", *built, "falls back to the CPU"]
    assert_says(findings[0], "note", texts, ["uninstall -y torch torchvision", index])
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
    machine(gpu="cuda", error=error)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: fail(error))
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


def test_a_mac_or_a_python_for_intels_processors(machine):
    machine(cuda=None, system=("Darwin", "23.6.0", "x86_64"))
    assert_says(first(), "note", ["Intel", "2.2"], ["arm64", "hosted notebook"])


def test_an_amd_card_of_which_only_the_kernel_knows(machine, monkeypatch, tmp_path):
    machine(cuda=None)
    (tmp_path / "kfd").touch()
    monkeypatch.setattr(why_no_gpu, "AMDS_DEVICE", tmp_path / "kfd")
    assert_says(first(), "note", ["AMD GPU", torch.__version__], ["ROCm build"])


def test_a_build_for_amds_gpus_that_finds_none(machine, monkeypatch):
    machine(cuda=None, hip="6.4.1")
    says = "ERROR:root:Driver not initialized (amdgpu not found in modules)"
    monkeypatch.setattr(why_no_gpu, "ask_driver", lambda *command: ("", says))
    assert_says(first(), "note", ["ROCm 6.4.1", says], ["/dev/kfd", "render"])
    machine(cuda=None)
    monkeypatch.setattr(why_no_gpu, "ask_driver", lambda *command: ("", says))
    assert_says(first(), "note", [says], ["modprobe amdgpu"])


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
    def missing(train):
        raise error

    monkeypatch.setattr(doctor, "load_mnist", missing)
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
