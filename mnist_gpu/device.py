"""Which device there is, what it is called, and how many threads to use on it."""

import contextlib
import functools
import importlib.metadata
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import torch

from mnist_gpu.checks import at_least_one

# A second thread makes this small training 1.5 times faster on two free cores, but 10 to 60 times slower beside another
# busy process, since OpenMP's threads spin while they wait for each other. So the default suits a shared server.
DEFAULT_THREADS = 1

WSL = "/usr/lib/wsl/lib"  # where NVIDIA's programs are in WSL, which after a login by ssh is not on PATH
PROGRAM_SECONDS = 60  # nvidia-smi may take 10 to wake the driver of eight cards, and a new process to import PyTorch
FIRST_KERNEL = """import sys, torch
try: torch.ones(64, 64, device=sys.argv[1]).matmul(torch.ones(64, 64, device=sys.argv[1])).sum().item()
except Exception: pass  # `kernel_error` meets it, too"""
CGROUP = Path("/sys/fs/cgroup")  # where Linux tells a container's limits (cgroup v2)


def accelerator() -> torch.device | None:
    """The GPU type that PyTorch reports as available (cuda, mps, xpu, ...), or None. Runs nothing on it."""
    return torch.accelerator.current_accelerator(check_available=True)


def available_devices() -> list[str]:
    """The names that `pick_device` accepts here: "cpu", then every GPU, such as "cuda:0"."""
    found = accelerator()
    return ["cpu"] + ([f"{found.type}:{i}" for i in range(torch.accelerator.device_count())] if found else [])


def ask(program: str, *arguments: str) -> tuple[str, str]:
    """What a program prints, and what is wrong if it fails or takes too long. Both are "" where it is not installed."""
    found = shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), WSL]))
    if found is None:
        return "", ""
    options = {"encoding": "utf-8", "errors": "replace", "stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    try:
        process = subprocess.Popen([found, *arguments], stdout=subprocess.PIPE, **options)
        text, _ = process.communicate(timeout=PROGRAM_SECONDS)
    except OSError as failure:
        return "", str(failure)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # what waits for a broken driver cannot even be killed
            process.communicate(timeout=1)
        return "", f"no answer in {PROGRAM_SECONDS} seconds"
    if (status := process.returncode) == 0:
        return text.strip(), ""
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return "", f"{textwrap.shorten(text, 300)} ({how})"


@functools.cache
def ends_its_process(name: str) -> str:
    """How a first kernel on "cuda:0" ends another process, or "". (A fork would be faster, but gets no driver.)"""
    return ask(sys.executable, "-c", FIRST_KERNEL, name)[1]


def kernel_error(device: torch.device | str) -> str | None:
    """Runs a small matrix product on `device`: None if its result is right, else one line that says what went wrong.

    `torch.cuda.is_available()` is true even on cards for which this PyTorch holds no code: only a kernel tells.
    """
    device = torch.device(device)
    may_end = device.type == "xpu" or (torch.version.hip and device.type != "cpu")  # others raise an error instead
    if may_end and (end := ends_its_process(f"{device.type}:{device.index or 0}")):
        return f"a first kernel ended its process: {end}"
    try:
        ones = torch.ones(64, 64, device=device)
        total = (ones @ ones).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what PyTorch's backends raise
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None if total == 64**3 else f"a 64 x 64 matrix product summed to {total} instead of {64**3}"


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device to train on: "auto" is the GPU if a real kernel runs on it, else the CPU.

    Raises ValueError if `name` is not a device, is not here, or is here and cannot run a kernel.
    """
    if str(name) == "auto":
        found = accelerator() or torch.device("cpu")
        if error := kernel_error(found):
            print(f"The {found.type} device is there but does not work ({error}).")
            print("Using the CPU. `python -m mnist_gpu doctor` says more.")
            return torch.device("cpu")
        return found
    allowed = available_devices()
    if str(name) not in {*allowed, *(a.split(":")[0] for a in allowed)}:
        raise ValueError(f"device is {str(name)!r}, but here it must be one of: auto, {', '.join(allowed)}")
    device = torch.device(name)
    if device.index is not None:  # PyTorch then uses it, too, where no device is named
        torch.accelerator.set_device_index(device.index)
    if error := kernel_error(device):
        raise ValueError(f"device {str(name)!r} is there but cannot run a kernel: {error}")
    return device


def synchronize(device: torch.device | str) -> None:
    """Waits until `device` has done all the work given to it. Returns at once for the CPU, which never lags behind."""
    if torch.device(device).type != "cpu":  # torch.accelerator.synchronize raises where there is no accelerator
        torch.accelerator.synchronize(device)


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """How many CPUs this process may use: the machine's, its affinity's, or its container's quota if that is less."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no cgroups here, or no limit: "max 100000"
        quota, period = map(int, (cgroup / "cpu.max").read_text(encoding="utf-8").split())
        cpus = min(cpus, math.ceil(quota / period))
    return cpus


def free_memory(cgroup: Path = CGROUP) -> int:
    """Bytes of the computer's memory that this process may still take: what is available, or its container leaves."""
    import psutil  # here: it costs some milliseconds, which importing the training need not

    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no cgroups here, or no limit: "max"
        files = ("memory.max", "memory.current", "memory.stat")
        most, taken, kept = ((cgroup / name).read_text(encoding="utf-8") for name in files)
        # The files that a container has read stay in its memory until that is needed: they count as free.
        read = re.findall(r"^(?:in)?active_file (\d+)", kept, re.MULTILINE)
        free = min(free, int(most) - int(taken) + sum(map(int, read)))
    return max(free, 0)


def out_of_memory(error: Exception) -> bool:
    """Whether a GPU's memory ran out, or the computer's, for which PyTorch raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "CPUAllocator" in str(error)


def set_threads(threads: int = DEFAULT_THREADS) -> int:
    """Sets how many CPU threads an operation may use, and returns it. ValueError unless 1 to the number of CPUs."""
    at_least_one(threads=threads)
    if threads > (cpus := os.cpu_count() or 1):
        raise ValueError(f"threads is {threads}, but must be at most {cpus}, the number of this machine's CPUs")
    torch.set_num_threads(threads)
    return threads


@contextlib.contextmanager
def using_threads(threads: int | None = DEFAULT_THREADS) -> Iterator[None]:
    """`set_threads` for a block or a function (None: no change). After it, also after an error, all is as before.

    Not around a `yield`: whoever iterates would have these threads, too, until the generator goes on.
    """
    before = torch.get_num_threads()
    try:
        if threads is not None:
            set_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)  # not set_threads: OMP_NUM_THREADS may ask for more than there are CPUs


def cpu_name() -> str:
    """The processor's name, such as "AMD EPYC", as far as the system tells it."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*: *(.+)$", lines, re.MULTILINE):
            return found[1].strip()
    apples, _ = ask("sysctl", "-n", "machdep.cpu.brand_string")
    return apples or platform.processor() or platform.machine() or "unknown CPU"


def device_name(device: torch.device | str) -> str:
    """The hardware's name: "NVIDIA H200", "AMD EPYC", ..."""
    device = torch.device(device)
    if device.type in ("cuda", "xpu"):
        return getattr(torch, device.type).get_device_name(device)
    return f"{cpu_name()} GPU ({device.type})" if device.type != "cpu" else cpu_name()


def nvidia_smi() -> tuple[list[dict[str, str]], str]:
    """The NVIDIA GPUs that the driver knows of, and what is wrong, or ""."""
    fields = ("name", "driver_version", "compute_cap")
    answer, wrong = ask("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader")
    lines = [line.split(", ") for line in answer.splitlines()]
    cards = [dict(zip(fields, line, strict=True)) for line in lines if len(line) == len(fields)]
    return cards, wrong or ("" if cards else answer)


def environment(device: torch.device | str) -> dict:
    """What a measured number depends on, as plain values: hardware, driver, versions, threads. None: there is none."""
    device = torch.device(device)
    gpu = device.type in ("cuda", "xpu")
    smi = nvidia_smi()[0] if device.type == "cuda" else []
    return {
        "device": device.type,
        "device_name": device_name(device),
        "memory_bytes": getattr(torch, device.type).get_device_properties(device).total_memory if gpu else None,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))) if device.type == "cuda" else None,
        "driver": smi[0]["driver_version"] if smi else None,
        "cpu_name": cpu_name(),
        "usable_cpus": usable_cpus(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "torchvision": next((d.version for d in importlib.metadata.distributions(name="torchvision")), None),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def describe(device: torch.device | str) -> str:
    """One line: device, threads and versions."""
    e = environment(device)
    memory = f", {e['memory_bytes'] / 2**30:.0f} GiB" if e["memory_bytes"] else ""
    threads = f"{e['threads']} thread{'s' if e['threads'] > 1 else ''} of {e['usable_cpus']} usable CPUs"
    return f"Device: {e['device']} ({e['device_name']}{memory}), {threads}, torch {e['torch']}, Python {e['python']}"


def setup(device: str = "auto", threads: int = DEFAULT_THREADS) -> torch.device:
    """Picks the device, sets the threads, prints `describe`'s line, and returns the device: a notebook's first step."""
    picked = pick_device(device)
    set_threads(threads)
    print(describe(picked))
    return picked
