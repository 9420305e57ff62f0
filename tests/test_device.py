import importlib.metadata
import json
import os
from types import SimpleNamespace

import psutil
import pytest
import torch

from mnist_gpu import device as module
from mnist_gpu.device import (
    BESIDES_PATH,
    accelerator,
    available_devices,
    describe,
    environment,
    free_memory,
    kernel_error,
    memory_error,
    need_memory,
    nvidia_smi,
    pick_device,
    set_threads,
    setup,
    synchronize,
    usable_cpus,
)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)


@pytest.fixture
def two_gpus(monkeypatch):
    """Two CUDA devices that PyTorch reports and on which kernels run; a test may break them."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: None)
    monkeypatch.setattr(module, "kernel_error", lambda device: None)


def test_without_a_gpu_auto_is_the_cpu_and_nothing_is_printed(no_gpu, capsys):
    assert pick_device() == torch.device("cpu")
    assert accelerator() is None and available_devices() == ["cpu"]
    assert capsys.readouterr().out == ""


def test_the_cpu_can_be_asked_for_by_name_and_as_a_device(two_gpus):
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")


def test_auto_is_the_gpu_where_one_works(two_gpus, capsys):
    assert pick_device("auto") == torch.device("cuda")
    assert capsys.readouterr().out == ""


def test_each_of_several_gpus_can_be_asked_for(two_gpus):
    assert available_devices() == ["cpu", "cuda:0", "cuda:1"]
    assert pick_device("cuda") == torch.device("cuda")
    assert pick_device("cuda:1") == pick_device(torch.device("cuda", 1)) == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps", "xpu:0", "gpu", "", "CPU", None, 1.5])
def test_a_device_that_is_not_here_is_named_with_those_that_are(no_gpu, name):
    with pytest.raises(ValueError) as caught:
        pick_device(name)
    assert str(caught.value) == f"device is {str(name)!r}, but here it must be one of: auto, cpu"


def test_the_gpu_that_is_picked_becomes_the_current_one_before_a_kernel_runs_on_it(two_gpus, monkeypatch):
    events = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: events.append(index))
    monkeypatch.setattr(module, "kernel_error", lambda device: events.append(str(device)))
    for name in ("cuda:1", "cuda", "cpu", "auto"):
        pick_device(name)
    assert events == [1, "cuda:1", "cuda", "cpu", "cuda"]


def test_a_gpu_number_too_high_is_named_with_the_gpus_that_are_here(two_gpus):
    with pytest.raises(ValueError, match="'cuda:7', but here it must be one of: auto, cpu, cuda:0, cuda:1"):
        pick_device("cuda:7")


def test_auto_falls_back_to_the_cpu_and_says_so_where_no_kernel_runs(two_gpus, monkeypatch, capsys):
    monkeypatch.setattr(module, "kernel_error", lambda device: "no kernel image is available")
    assert pick_device("auto") == torch.device("cpu")
    said = capsys.readouterr().out
    assert "cuda" in said and "no kernel image is available" in said and "Using the CPU" in said and "doctor" in said


def test_a_gpu_asked_for_by_name_on_which_no_kernel_runs_is_an_error(two_gpus, monkeypatch):
    monkeypatch.setattr(module, "kernel_error", lambda device: "no kernel image is available")
    with pytest.raises(ValueError, match=r"'cuda:1' is there but cannot run a kernel: no kernel image is available"):
        pick_device("cuda:1")


def test_a_kernel_runs_on_the_cpu():
    assert kernel_error("cpu") is None


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError, NotImplementedError, torch.OutOfMemoryError])
def test_a_failing_kernel_gives_the_first_line_of_its_error(monkeypatch, kind):
    def fail(*args, **kwargs):
        raise kind("CUDA error: no kernel image\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch, "ones", fail)
    assert kernel_error("cuda") == "CUDA error: no kernel image"


def test_a_kernel_with_a_wrong_result_is_an_error(monkeypatch):
    monkeypatch.setattr(torch, "ones", torch.zeros)
    assert kernel_error("cpu") == "a 64 x 64 matrix product summed to 0.0 instead of 262144"


@pytest.fixture
def rocm(monkeypatch):
    """A ROCm build of PyTorch in a process that has tried no kernel yet."""
    monkeypatch.setattr(torch.version, "hip", "6.4.1")
    monkeypatch.setattr(module, "_ended", {})
    monkeypatch.setattr(torch, "ones", lambda *size, device: pytest.fail("a kernel ran in this process"))


@pytest.mark.parametrize(
    ("kernel", "says"),
    [
        ("import os; os.abort()", "SIGABRT" if os.name == "posix" else "0x3"),
        ("import os, sys; print('rocBLAS error: Cannot read x for gfx1036', file=sys.stderr); os.abort()", "gfx1036"),
        ("import time; time.sleep(60)", "0.5 seconds"),
    ],
)
def test_a_kernel_that_ends_its_process_or_never_ends_is_told(rocm, monkeypatch, kernel, says):
    monkeypatch.setattr(module, "FIRST_KERNEL", kernel)
    monkeypatch.setattr(module, "KERNEL_SECONDS", 0.5 if "sleep" in kernel else 60)
    assert says in kernel_error("cuda")
    monkeypatch.setattr(module, "run_for", lambda *command: pytest.fail("it was tried once more"))
    assert says in kernel_error("cuda:0")


def test_where_no_first_kernel_is_known_to_end_a_process_none_is_tried_in_another(monkeypatch):
    monkeypatch.setattr(module, "run_for", lambda *command: pytest.fail("a process was started"))
    monkeypatch.setattr(module, "_ended", {})
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch, "ones", lambda *size, device: torch.full(size, 1.0))
    assert [kernel_error(device) for device in ("cpu", "cuda", "mps")] == [None] * 3


def test_a_kernel_that_works_in_a_process_of_its_own_is_run_in_this_one_too(rocm, monkeypatch):
    monkeypatch.setattr(module, "FIRST_KERNEL", "pass")
    monkeypatch.setattr(torch, "ones", lambda *size, device: torch.full(size, 2.0))
    assert "instead of 262144" in kernel_error("cuda")


def test_synchronize_on_the_cpu_returns_at_once_and_calls_no_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: pytest.fail("called"))
    synchronize("cpu")


def test_synchronize_on_a_gpu_waits_for_that_gpu(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    synchronize("cuda:1")
    assert waited == [torch.device("cuda:1")]


# CPUs and threads


@pytest.fixture
def eight_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("content", "cpus"),
    [
        ("200000 100000", 2),
        ("max 100000", 8),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("3200000 100000", 8),
        ("nonsense", 8),
    ],
)
def test_usable_cpus_reads_a_container_quota_of_cgroup_v2(tmp_path, eight_cpus, content, cpus):
    (tmp_path / "cpu.max").write_text(content + "\n", encoding="utf-8")
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.parametrize(
    ("quota", "cpus"), [("200000", 2), ("-1", 8), ("150000", 2), ("10000", 1), ("3200000", 8), ("nonsense", 8)]
)
def test_usable_cpus_reads_a_container_quota_of_cgroup_v1(tmp_path, eight_cpus, quota, cpus):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n", encoding="utf-8")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n", encoding="utf-8")
    assert usable_cpus(tmp_path) == cpus


def test_usable_cpus_without_cgroups_is_the_affinity_and_without_that_the_machines_number(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 6}, raising=False)
    assert usable_cpus(tmp_path) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert usable_cpus(tmp_path) == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(tmp_path) == 1


def test_set_threads_sets_them_and_returns_them():
    assert set_threads(2) == 2 == torch.get_num_threads()
    assert set_threads() == 1 == torch.get_num_threads()


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_a_bad_number_of_threads_is_named(threads):
    with pytest.raises(ValueError, match=f"threads is {threads!r}"):
        set_threads(threads)


# What is said about a device


def test_more_threads_than_cpus_are_refused_before_one_starts(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: threads == 8 or pytest.fail("they were set"))
    assert set_threads(8) == 8
    with pytest.raises(ValueError, match="threads is 9, but must be at most 8, the number of this machine's CPUs"):
        set_threads(9)


def test_free_memory_is_the_least_of_the_computers_and_the_containers(tmp_path):
    here = psutil.virtual_memory().total
    assert 0 < free_memory(tmp_path / "nowhere") < here
    (tmp_path / "memory.current").write_text("700\n", encoding="utf-8")
    for limit, free in (("1000", 300), ("500", 0)):  # a container may be over its limit for a moment
        (tmp_path / "memory.max").write_text(limit + "\n", encoding="utf-8")
        assert free_memory(tmp_path) == free
    (tmp_path / "memory.max").write_text("max\n", encoding="utf-8")
    assert free_memory(tmp_path) > 1000


def test_the_older_way_to_limit_a_containers_memory_is_seen_too(tmp_path):
    """cgroup v1: no limit is a number there, 2^63 less a page."""
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("700\n", encoding="utf-8")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1000\n", encoding="utf-8")
    assert free_memory(tmp_path) == 300
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n", encoding="utf-8")
    assert free_memory(tmp_path) > 1000


@pytest.mark.parametrize(("folder", "limit", "used"), [(".", "memory.max", "memory.current"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes")])  # fmt: skip
def test_files_that_the_system_keeps_in_memory_are_not_taken_for_used(tmp_path, folder, limit, used):
    """Whoever has read large files in a container would seem to have no memory left; the system gives it back."""
    group = tmp_path / folder
    group.mkdir(exist_ok=True)
    for name, text in (
        (limit, "1000"),
        (used, "990"),
        ("memory.stat", "anon 90\nactive_file 100\ninactive_file 800"),
    ):
        (group / name).write_text(text + "\n", encoding="utf-8")
    assert free_memory(tmp_path) == 910
    with (group / "memory.stat").open("a", encoding="utf-8") as file:  # v1 counts the groups below this one apart
        file.write("total_active_file 100\ntotal_inactive_file 850\n")
    assert free_memory(tmp_path) == 960


def test_memory_that_is_needed_is_named_with_what_is_free(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 2 * 10**9)
    need_memory(2 * 10**9, "it")
    with pytest.raises(MemoryError, match=r"^weights: 3.5 GB are needed, but 2.0 GB of memory are free$"):
        need_memory(3_500_000_000, "weights")


def test_memory_that_ran_out_is_told_from_other_errors(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 10**9)
    gpu = torch.OutOfMemoryError("CUDA out of memory")
    assert memory_error(gpu) is gpu and memory_error(RuntimeError("shapes do not match")) is None
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    found = memory_error(caught.value)
    assert type(found) is MemoryError and "GB were needed, 1.0 GB are free" in str(found)
    windows = "data. DefaultCPUAllocator: not enough memory: you tried to allocate 4000000000 bytes."
    assert "4.0 GB were needed" in str(memory_error(RuntimeError(windows)))


@pytest.fixture
def fake_nvidia_smi(tmp_path, monkeypatch):
    """Puts a program in the place of nvidia-smi, on a PATH that has no other: `fake_nvidia_smi(lines of sh)`."""
    if os.name == "nt":
        pytest.skip("the program is written for a POSIX shell")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "BESIDES_PATH", ())

    def fake(script, folder=tmp_path):
        folder.mkdir(exist_ok=True)
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / "nvidia-smi").chmod(0o755)

    return fake


def test_nvidia_smi_gives_the_cards_the_driver_knows(fake_nvidia_smi):
    fake_nvidia_smi("echo 'NVIDIA H200, 570.124.06, 9.0'; echo 'Tesla P40, 570.124.06, 6.1'")
    assert nvidia_smi() == (
        [
            {"name": "NVIDIA H200", "driver_version": "570.124.06", "compute_cap": "9.0"},
            {"name": "Tesla P40", "driver_version": "570.124.06", "compute_cap": "6.1"},
        ],
        "",
    )


def test_nvidia_smi_of_an_old_driver_gives_what_it_knows(fake_nvidia_smi):
    old = """case "$*" in *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2;; esac"""
    fake_nvidia_smi(f"{old}\necho 'NVIDIA GeForce GTX 1080, 470.182.03'")
    assert nvidia_smi() == ([{"name": "NVIDIA GeForce GTX 1080", "driver_version": "470.182.03"}], "")


def test_without_nvidia_smi_there_is_nothing_to_say(fake_nvidia_smi):
    assert nvidia_smi() == ([], "")


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("echo 'Failed to initialize NVML: Unknown Error'; exit 255", "NVML: Unknown Error (exit status 255)"),
        ("echo 'GPU is lost.' >&2; exit 15", "GPU is lost. (exit status 15)"),
        ("echo 'No devices were found'", "No devices were found"),
        ("exec /bin/sleep 60", "0.2 seconds"),
    ],
)
def test_what_is_wrong_with_nvidia_smi_is_told(fake_nvidia_smi, monkeypatch, script, wrong):
    monkeypatch.setattr(module, "PROGRAM_SECONDS", 0.2 if "sleep" in script else 20)
    fake_nvidia_smi(script)
    cards, said = nvidia_smi()
    assert cards == [] and wrong in said


def test_nvidia_smi_is_found_where_wsl_keeps_it(fake_nvidia_smi, monkeypatch, tmp_path):
    assert "/usr/lib/wsl/lib" in BESIDES_PATH
    monkeypatch.setattr(module, "BESIDES_PATH", (str(tmp_path / "wsl"),))
    fake_nvidia_smi("echo 'NVIDIA GeForce RTX 3060, 551.61, 8.6'", tmp_path / "wsl")
    assert [card["driver_version"] for card in nvidia_smi()[0]] == ["551.61"]


def test_the_environment_of_a_cpu_is_plain_values_under_their_names():
    found = environment("cpu")
    assert set(found) == {
        *("device", "device_name", "memory_bytes", "capability", "driver", "cpu_name", "usable_cpus", "threads"),
        *("load_average", "torch", "cuda", "torchvision", "python", "system"),
    }
    assert json.loads(json.dumps(found)) == found
    assert found["device"] == "cpu" and found["device_name"] == found["cpu_name"] != ""
    assert found["memory_bytes"] is found["capability"] is found["driver"] is None
    assert found["threads"] == 1 and found["torch"] == torch.__version__


def test_without_torchvision_the_environment_says_so(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert environment("cpu")["torchvision"] is None


def test_the_environment_of_a_gpu_names_card_memory_driver_and_capability(monkeypatch, fake_nvidia_smi):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=139 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    fake_nvidia_smi("echo 'NVIDIA H200, 570.124.06, 9.0'")
    found = environment("cuda")
    assert json.loads(json.dumps(found)) == found
    assert (found["device"], found["device_name"], found["memory_bytes"]) == ("cuda", "NVIDIA H200", 139 * 2**30)
    assert (found["capability"], found["driver"]) == ("9.0", "570.124.06")
    assert describe("cuda").startswith("Device: cuda (NVIDIA H200, 139 GiB), 1 thread of ")


def test_describe_is_one_line_with_device_threads_and_versions():
    line = describe("cpu")
    assert "\n" not in line
    assert line.startswith("Device: cpu (") and f"1 thread of {usable_cpus()} usable CPUs" in line
    assert f"torch {torch.__version__}" in line
    set_threads(2)
    assert "2 threads of" in describe("cpu")


def test_setup_picks_the_device_sets_the_threads_and_prints_the_line(capsys):
    assert setup("cpu", threads=2) == torch.device("cpu")
    assert torch.get_num_threads() == 2
    said = capsys.readouterr().out
    assert said.startswith("Device: cpu (") and ", 2 threads of " in said and said.count("\n") == 1
