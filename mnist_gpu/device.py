"""Which device there is, what it is called, and how many threads to use on it."""

import contextlib
import importlib.metadata
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from mnist_gpu.checks import at_least_one

# One thread is the default because this network is small: on two free cores a second thread made the training about
# 1.5 times faster, but with another busy process beside it an epoch took 10 to 60 times as long, since OpenMP threads
# that wait for each other spin. On a shared server one thread per reader is the only setting that works for everybody.
# (Threads that sleep while they wait, OMP_WAIT_POLICY=passive, are no way out: beside a busy process two of them take a
# third of the time of two that spin, but on a free machine 2.6 times as long.)
DEFAULT_THREADS = 1

# Where a driver's programs are if not on PATH: NVIDIA's in WSL, of which a login by ssh knows nothing, and AMD's.
BESIDES_PATH = ("/usr/lib/wsl/lib", "/opt/rocm/bin")
PROGRAM_SECONDS = 20  # nvidia-smi may take half of that on a server with eight cards, whose driver it has to wake first
KERNEL_SECONDS = 60
FIRST_KERNEL = "import sys, torch; a = torch.ones(64, 64, device=sys.argv[1]); print((a @ a).sum().item())"
_ended: dict[str, str | None] = {}  # what `ends_its_process` has found, for each GPU


def accelerator() -> torch.device | None:
    """The GPU type that PyTorch reports as available (cuda, mps, xpu, ...), or None. Runs nothing on it."""
    return torch.accelerator.current_accelerator(check_available=True)


def available_devices() -> list[str]:
    """The names that `pick_device` accepts here: "cpu", then every GPU, such as "cuda:0"."""
    found = accelerator()
    return ["cpu"] + ([f"{found.type}:{i}" for i in range(torch.accelerator.device_count())] if found else [])


def run_for(command: list[str], seconds: float) -> tuple[int, str]:
    """The exit status of a program, and all that it printed. Raises TimeoutExpired after `seconds`.

    It does not wait for the end of what it kills then: a program that waits for a broken driver cannot even be killed.
    """
    options = {"encoding": "utf-8", "errors": "replace", "stdin": subprocess.DEVNULL}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    try:
        text, _ = process.communicate(timeout=seconds)
    except BaseException:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        raise
    return process.returncode, text.strip()


def ends_its_process(device: torch.device | str) -> str | None:
    """Runs a first kernel in a process of its own: one line that says how that ended the process, or None if it lives.

    Done once for a GPU and process. It takes as long as `import torch` and the GPU's start: 1.6 s and more. A fork()
    would save the import, but a process that has asked for GPUs before, be it by `torch.cuda.is_available()`, leaves
    its forks a driver that does not work there, and a good GPU would be called a bad one.
    """
    device = torch.device(device)
    name = f"{device.type}:{device.index or 0}"
    if name not in _ended:
        try:
            status, text = run_for([sys.executable, "-c", FIRST_KERNEL, name], KERNEL_SECONDS)
        except subprocess.TimeoutExpired:
            _ended[name] = f"a first kernel has not come to an end in {KERNEL_SECONDS} seconds"
        else:
            how = signal.Signals(-status).name if status < 0 else f"exit status {status:#x}"
            said = next((f": {line.strip()}" for line in text.splitlines() if "error" in line.lower()), "")
            # 1 is the status after an error in Python, which `kernel_error` meets, too, and names.
            _ended[name] = None if status in (0, 1) else f"a first kernel ended its process ({how}{said})"
    return _ended[name]


def kernel_error(device: torch.device | str) -> str | None:
    """Runs a small matrix product on `device`: None if its result is right, else one line that says what went wrong.

    `torch.cuda.is_available()` is true on cards for which this build of PyTorch holds no code: only a kernel tells.
    With NVIDIA's cards and Apple's it raises an error. With AMD's it may end the process (SIGSEGV, or abort() in
    rocBLAS), and so it may with Intel's: there the first kernel runs in a process of its own, and everywhere as soon as
    one GPU was tried so.
    """
    device = torch.device(device)
    careful = device.type != "cpu" and (torch.version.hip or device.type == "xpu" or _ended)
    if careful and (end := ends_its_process(device)):
        return end
    try:
        ones = torch.ones(64, 64, device=device)
        total = (ones @ ones).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what PyTorch's backends raise
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None if total == 64**3 else f"a 64 x 64 matrix product summed to {total} instead of {64**3}"


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device to train on. "auto" is the GPU if there is one on which a real kernel runs, else the CPU.

    One of several GPUs, such as "cuda:1", becomes the current one: what PyTorch does for no device in particular (to
    wait, to capture a graph, to choose a stream) it then does for this one.

    Raises:
        ValueError: `name` is not a device, is not here, or is here and cannot run a kernel.
    """
    if str(name) == "auto":
        found = accelerator()
        if found is None:
            return torch.device("cpu")
        error = kernel_error(found)
        if error is None:
            return found
        print(
            f"The {found.type} device is there but does not work ({error}).\n"
            "Using the CPU. `python -m mnist_gpu doctor` says more."
        )
        return torch.device("cpu")
    allowed = available_devices()
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or str(device) not in {*allowed, *(a.split(":")[0] for a in allowed)}:
        raise ValueError(f"device is {str(name)!r}, but here it must be one of: auto, {', '.join(allowed)}")
    if device.index is not None and device.type != "cpu":
        torch.accelerator.set_device_index(device.index)
    if error := kernel_error(device):
        raise ValueError(f"device {str(name)!r} is there but cannot run a kernel: {error}")
    return device


def synchronize(device: torch.device | str) -> None:
    """Waits until `device` has done all the work given to it. Returns at once for the CPU, which never lags behind."""
    device = torch.device(device)
    if device.type != "cpu":  # torch.accelerator.synchronize raises where there is no accelerator
        torch.accelerator.synchronize(device)


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many CPUs this process may use: the least of the machine's, its affinity's and its container's quota.

    PyTorch and `os.cpu_count()` see the host's CPUs even in a container that may use only two of them.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        if (cgroup / "cpu.max").exists():  # cgroup v2: "200000 100000" is two CPUs, "max 100000" no limit
            quota, period = (cgroup / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{k}_us").read_text(encoding="utf-8").strip() for k in ("quota", "period")
            )
        if quota != "max" and int(quota) > 0:
            cpus = min(cpus, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no cgroups here (macOS, Windows, or no limit set)
    return cpus


def free_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of the computer's memory that this process may still take: what is available, or its container leaves."""
    import psutil  # here: it costs some milliseconds, which importing the training need not

    free = psutil.virtual_memory().available
    for group, limit, used in (  # cgroup v2, then v1
        (cgroup, "memory.max", "memory.current"),
        (cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # not there, or no limit ("max")
            most, taken = (int((group / name).read_text(encoding="utf-8")) for name in (limit, used))
            free = min(free, most - taken + _files_in_memory(group))
    return max(free, 0)


def _files_in_memory(group: Path) -> int:
    """Bytes of files that a container has read, which the system keeps in memory and gives up when it is needed."""
    try:
        found = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return 0
    # Of cgroup v1 only the totals hold the groups below this one, as its use does; of v2 every number does.
    return sum(int(found.get(f"total_{name}", found.get(name, 0))) for name in ("active_file", "inactive_file"))


def need_memory(needed: int, what: str) -> None:
    """Raises MemoryError if the computer has less than `needed` bytes free, before the system ends a process for it."""
    if needed > (free := free_memory()):
        raise MemoryError(f"{what}: {needed / 1e9:,.1f} GB are needed, but {free / 1e9:,.1f} GB of memory are free")


def memory_error(error: Exception) -> Exception | None:
    """The error that says whose memory ran out, or None if `error` is another. For a GPU PyTorch's own says it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return error
    if found := re.search(r"CPUAllocator.* allocate (\d+) bytes", str(error)):
        needed, free = int(found[1]) / 1e9, free_memory() / 1e9
        return MemoryError(f"the computer's memory ran out: {needed:,.1f} GB were needed, {free:,.1f} GB are free")
    return None


def set_threads(threads: int = DEFAULT_THREADS) -> int:
    """Sets how many CPU threads an operation may use, and returns it.

    Raises ValueError below 1, and above the number of this machine's CPUs: more are never faster, and a million of
    them take every process that the system allows.
    """
    at_least_one(threads=threads)
    if threads > (cpus := os.cpu_count() or 1):
        raise ValueError(f"threads is {threads}, but must be at most {cpus}, the number of this machine's CPUs")
    torch.set_num_threads(threads)
    return threads


@contextlib.contextmanager
def using_threads(threads: int | None = DEFAULT_THREADS) -> Iterator[None]:
    """`set_threads` for the block alone: after it, also after an error or an interrupt, there are as many as before.

    None leaves them as they are. Also a decorator, but of no generator, and not around a `yield`: whoever iterates
    would have these threads, too, until the generator goes on. Raises ValueError as set_threads does.
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
        if found := re.search(
            r"^model name\s*: *(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
        ):
            return found[1].strip()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        text = {"encoding": "utf-8", "errors": "replace"}
        if found := subprocess.run(command, capture_output=True, check=False, **text).stdout.strip():
            return found
    return platform.processor() or platform.machine() or "unknown CPU"


def device_name(device: torch.device | str) -> str:
    """The hardware's name: "NVIDIA H200", "AMD EPYC", ..."""
    device = torch.device(device)
    if device.type in ("cuda", "xpu"):
        return getattr(torch, device.type).get_device_name(device)
    return f"{cpu_name()} GPU ({device.type})" if device.type != "cpu" else cpu_name()


def ask_driver(program: str, *arguments: str) -> tuple[str, str]:
    """What a driver's program prints, and what is wrong if it fails. Both are "" where it is not installed."""
    found = shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *BESIDES_PATH]))
    if found is None:
        return "", ""
    try:
        status, text = run_for([found, *arguments], PROGRAM_SECONDS)
    except subprocess.TimeoutExpired:
        return "", f"no answer in {PROGRAM_SECONDS} seconds"
    except OSError as failure:
        return "", str(failure)
    return (text, "") if status == 0 else ("", f"{' '.join(text.split())} (exit status {status})")


def nvidia_smi() -> tuple[list[dict[str, str]], str]:
    """The NVIDIA GPUs that the driver knows of, each with name, driver_version and compute_cap, and what is wrong.

    This asks the driver, not PyTorch, so that a GPU which PyTorch cannot use is found as well. The second is what
    nvidia-smi says where it fails, or "". Drivers as old as 470 tell no compute_cap.
    """
    for fields in (("name", "driver_version", "compute_cap"), ("name", "driver_version")):
        answer, wrong = ask_driver("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader")
        if "not a valid field" not in wrong:
            break
    lines = [line.split(",") for line in answer.splitlines()]
    cards = [dict(zip(fields, map(str.strip, line), strict=True)) for line in lines if len(line) == len(fields)]
    return cards, wrong or ("" if cards else answer)


def environment(device: torch.device | str) -> dict:
    """What a measured number depends on, as plain values: hardware, driver, versions, threads.

    `memory_bytes` is the GPU's memory in bytes, or None on a CPU; `load_average` the number of busy processes over
    the last minute, or None where the system does not tell.
    """
    device = torch.device(device)
    gpu = device.type in ("cuda", "xpu")
    torchvision = None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        torchvision = importlib.metadata.version("torchvision")
    properties = getattr(torch, device.type).get_device_properties(device) if gpu else None
    smi = nvidia_smi()[0] if device.type == "cuda" else []
    return {
        "device": device.type,
        "device_name": device_name(device),
        "memory_bytes": properties.total_memory if gpu else None,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))) if device.type == "cuda" else None,
        "driver": smi[0]["driver_version"] if smi else None,
        "cpu_name": cpu_name(),
        "usable_cpus": usable_cpus(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "torchvision": torchvision,
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
    """Picks the device, sets the threads, prints `describe`'s line, and returns the device: a notebook's first step.

    Raises:
        ValueError: the device is not here, or threads is not from 1 to the number of CPUs.
    """
    picked = pick_device(device)
    set_threads(threads)
    print(describe(picked))
    return picked
