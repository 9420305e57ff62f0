import functools
import json
import os
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest
import torch

from mnist_gpu import device


@pytest.fixture
def events(monkeypatch):
    """Two CUDA devices that PyTorch reports: which became the current one, and on which a kernel ran, in order."""
    events = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", events.append)
    monkeypatch.setattr(device, "kernel_error", lambda device: events.append(str(device)))
    return events


def test_without_a_gpu_auto_is_the_cpu_and_nothing_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    assert device.pick_device() == device.pick_device("cpu") == torch.device("cpu")
    assert device.accelerator() is None and device.available_devices() == ["cpu"]
    assert capsys.readouterr().out == ""


def test_a_gpu_that_is_asked_for_becomes_the_current_one_before_a_kernel_runs_on_it(events, capsys):
    assert device.available_devices() == ["cpu", "cuda:0", "cuda:1"]
    names = ("cuda:1", torch.device("cuda", 0), "cuda", "cpu", torch.device("cpu"), "auto")
    assert [str(device.pick_device(name)) for name in names] == ["cuda:1", "cuda:0", "cuda", "cpu", "cpu", "cuda"]
    assert events == [1, "cuda:1", 0, "cuda:0", "cuda", "cpu", "cpu", "cuda"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["cuda:7", "mps", "gpu", "", None, 1.5])
def test_a_device_that_is_not_here_is_named_with_those_that_are(events, name):
    with pytest.raises(ValueError, match=rf"{name!s}.*: auto, cpu, cuda:0, cuda:1$"):
        device.pick_device(name)


def test_a_gpu_on_which_no_kernel_runs_is_passed_over_aloud_or_refused(events, monkeypatch, capsys):
    monkeypatch.setattr(device, "kernel_error", lambda device: "no kernel image")
    assert device.pick_device("auto") == torch.device("cpu")
    said = capsys.readouterr().out
    assert "cuda" in said and "no kernel image" in said and "CPU" in said and "doctor" in said
    with pytest.raises(ValueError, match=r"'cuda:1'.*no kernel image"):
        device.pick_device("cuda:1")


def test_a_kernel_runs_on_the_cpu_and_a_wrong_result_or_an_error_is_told_in_one_line(monkeypatch):
    assert device.kernel_error("cpu") is None
    monkeypatch.setattr(torch, "ones", torch.zeros)
    assert "0.0 instead of 262144" in device.kernel_error("cpu")
    for error in (RuntimeError("no kernel image\nCompile with"), AssertionError("no kernel image")):
        monkeypatch.setattr(torch, "ones", Mock(side_effect=error))
        assert device.kernel_error("cuda") == "no kernel image"


@pytest.fixture
def rocm(monkeypatch):
    """A ROCm build of PyTorch in a process that has tried no kernel yet."""
    monkeypatch.setattr(torch.version, "hip", "6.4.1")
    monkeypatch.setattr(device, "ends_its_process", functools.cache(device.ends_its_process.__wrapped__))


@pytest.mark.parametrize(
    ("kernel", "says"),
    [
        ("import os; print('Cannot read x for gfx1036', flush=True); os.abort()", ["gfx1036", "SIGABRT"]),
        ("import time; time.sleep(600)", ["0.5 seconds"]),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
def test_a_kernel_that_ends_its_process_or_never_ends_is_told_and_not_tried_again(rocm, monkeypatch, kernel, says):
    monkeypatch.setattr(device, "FIRST_KERNEL", kernel)
    monkeypatch.setattr(device, "PROGRAM_SECONDS", 0.5 if "sleep" in kernel else 60)
    monkeypatch.setattr(torch, "ones", lambda *size, device: pytest.fail("a kernel ran in this process"))
    assert all(part in device.kernel_error("cuda") for part in says)
    monkeypatch.setattr(device, "ask", lambda *command: pytest.fail("it was tried once more"))
    assert all(part in device.kernel_error("cuda:0") for part in says)


def test_a_kernel_runs_in_this_process_too_and_in_another_only_where_it_may_end_one(rocm, monkeypatch):
    monkeypatch.setattr(torch, "ones", lambda *size, device: torch.full(size, 2.0))
    assert "instead of 262144" in device.kernel_error("cuda")
    monkeypatch.setattr(device, "ask", lambda *command: pytest.fail("a process was started"))
    monkeypatch.setattr(torch.version, "hip", None)
    assert ["instead" in device.kernel_error(name) for name in ("cpu", "cuda:1", "mps")] == [True] * 3


def test_synchronize_waits_for_the_gpu_that_is_named_and_calls_nothing_for_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "synchronize", waited := Mock())
    device.synchronize("cpu")
    device.synchronize("cuda:1")
    waited.assert_called_once_with("cuda:1")


# CPUs, threads, memory


def write(folder, **files):
    """Files of a cgroup, whose names have a point where these have two underscores."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("quota", "cpus"), [("200000", 2), ("150000", 2), ("50000", 1), ("3200000", 8), ("max", 8), ("?", 8)]
)
def test_usable_cpus_are_as_many_as_a_container_may_use(tmp_path, monkeypatch, quota, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    write(tmp_path, cpu__max=f"{quota} 100000")
    assert device.usable_cpus(tmp_path) == cpus


def test_usable_cpus_without_cgroups_is_the_affinity_and_without_that_the_machines_number(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 6}, raising=False)
    assert device.usable_cpus(tmp_path) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert device.usable_cpus(tmp_path) == 12


def test_threads_are_set_from_1_to_the_number_of_cpus(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert device.set_threads(2) == 2 == torch.get_num_threads()
    assert device.set_threads() == 1 == torch.get_num_threads()
    for threads in (0, 1.5, True):
        with pytest.raises(ValueError, match=rf"threads is {threads!r}.* at least 1"):
            device.set_threads(threads)
    with pytest.raises(ValueError, match=r"threads is 3.* at most 2"):
        device.set_threads(3)
    assert torch.get_num_threads() == 1


def test_free_memory_is_what_a_container_leaves_and_files_in_memory_are_free(tmp_path):
    assert 0 < device.free_memory(tmp_path) < psutil.virtual_memory().total
    kept = "anon 90\nactive_file 100\ninactive_file 850"
    for most, free in (("1000", 960), ("20", 0), ("9223372036854771712", None), ("max", None)):
        write(tmp_path, memory__max=most, memory__current="990", memory__stat=kept)
        assert device.free_memory(tmp_path) == free if free is not None else device.free_memory(tmp_path) > 1000


def test_memory_that_ran_out_is_told_from_other_errors():
    assert device.out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not device.out_of_memory(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert device.out_of_memory(caught.value)
    windows = "data. DefaultCPUAllocator: not enough memory: you tried to allocate 4000000000 bytes."
    assert device.out_of_memory(RuntimeError(windows))


# What is said about a device


@pytest.fixture
def fake_nvidia_smi(tmp_path, monkeypatch):
    """Puts a program in the place of nvidia-smi, on a PATH that has no other: `fake_nvidia_smi(text)`."""
    if os.name == "nt":
        pytest.skip("the program is written for a POSIX shell")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(device, "WSL", f"{tmp_path}{device.WSL}")

    def fake(script, folder="."):
        write(tmp_path / folder, **{"nvidia-smi": script})
        (tmp_path / folder / "nvidia-smi").chmod(0o755)

    return fake


def test_nvidia_smi_gives_the_cards_the_driver_knows_also_where_wsl_keeps_it(fake_nvidia_smi):
    assert device.nvidia_smi() == ([], "")
    printed = "NVIDIA H200, 570.124.06, 9.0\nTesla P40, 570.124.06, 6.1"
    fake_nvidia_smi(f"#!/bin/sh\necho '{printed}'", "usr/lib/wsl/lib")
    cards = [{"name": "NVIDIA H200", "compute_cap": "9.0"}, {"name": "Tesla P40", "compute_cap": "6.1"}]
    assert device.nvidia_smi() == ([card | {"driver_version": "570.124.06"} for card in cards], "")


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("#!/bin/sh\necho 'GPU is lost.' >&2; exit 15", "GPU is lost. (exit status 15)"),
        ("#!/bin/sh\necho 'No devices were found'", "No devices were found"),
        ("", "nvidia-smi"),  # an empty file, as in containers that were built beside a GPU: it cannot be run
    ],
)
def test_what_is_wrong_with_nvidia_smi_is_told(fake_nvidia_smi, script, wrong):
    fake_nvidia_smi(script)
    cards, said = device.nvidia_smi()
    assert cards == [] and wrong in said


def test_the_environment_of_a_cpu_is_plain_values_under_their_names():
    found = device.environment("cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["device"] == "cpu" and found["device_name"] == found["cpu_name"] != ""
    assert found["memory_bytes"] is found["capability"] is found["driver"] is None
    assert found["threads"] == 1 and found["torch"] == torch.__version__


def test_a_torchvision_that_does_not_say_its_version_or_none_stops_nothing(monkeypatch):
    monkeypatch.setattr(device.importlib.metadata, "distributions", lambda **name: iter(()))
    assert device.environment("cpu")["torchvision"] is None


def test_the_environment_of_a_gpu_names_card_memory_driver_and_capability(monkeypatch, fake_nvidia_smi):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=139 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    fake_nvidia_smi("#!/bin/sh\necho 'NVIDIA H200, 570.124.06, 9.0'")
    found = device.environment("cuda")
    assert json.loads(json.dumps(found)) == found
    assert (found["device"], found["device_name"], found["memory_bytes"]) == ("cuda", "NVIDIA H200", 139 * 2**30)
    assert (found["capability"], found["driver"]) == ("9.0", "570.124.06")
    assert "NVIDIA H200, 139 GiB" in device.describe("cuda")


def test_setup_picks_the_device_sets_the_threads_and_prints_one_line(capsys):
    assert device.setup("cpu", threads=2) == torch.device("cpu")
    assert torch.get_num_threads() == 2
    said = capsys.readouterr().out
    assert said == device.describe("cpu") + "\n" and said.count("\n") == 1
    for part in ("cpu", "2 threads", f"{device.usable_cpus()} usable CPUs", torch.__version__):
        assert part in said
