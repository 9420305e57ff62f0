"""What is here, what is wrong with it, and what to do about it: `python -m mnist_gpu doctor`.

An examination is a generator of findings; `@examination` adds it to those that `diagnose` makes.
"""

import contextlib
import ctypes
import dataclasses
import json as json_format
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated

import torch

from mnist_gpu.data import load_mnist
from mnist_gpu.device import (
    accelerator,
    describe,
    ends_its_process,
    environment,
    kernel_error,
    nvidia_smi,
    pick_device,
    usable_cpus,
)
from mnist_gpu.why_no_gpu import GPU_BYTES_NEEDED, OTHERS, PYTORCH, why_no_gpu, why_no_kernel

# Intel's and LLVM's OpenMP, one program under two names, which does not bear a second copy beside it, such as that of
# conda's numpy beside PyTorch's own. GCC's (libgomp), which PyTorch brings on Linux, gets on with them.
LLVMS_OPENMP = re.compile(r"lib(iomp5|omp)(md|140\.x86_64)?(-\w+)?\.(dll|so|dylib)", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """level: "ok", "note" (works, could be better) or "error" (training does not work). remedy: what to do."""

    level: str
    text: str
    remedy: str = ""


ok, note, error = (partial(Finding, level) for level in ("ok", "note", "error"))
EXAMINATIONS: list[Callable[[], Iterator[Finding]]] = []


def examination(function: Callable) -> Callable:
    EXAMINATIONS.append(function)
    return function


def diagnose(device: str = "auto") -> list[Finding]:
    """Examines the machine, and training on `device`; the last finding says whether training works.

    It runs a real kernel on the device, since `torch.cuda.is_available()` is also true where none can run.
    """
    findings = [finding for examine in EXAMINATIONS for finding in examine()]
    try:
        picked = pick_device(device)
    except ValueError as refusal:
        return [*findings, error(str(refusal), "Choose another device, or mend this one as said above.")]
    if works(findings):
        findings.append(ok(f"Training works here, on {describe(picked).removeprefix('Device: ')}."))
    return findings


def works(findings: list[Finding]) -> bool:
    """Whether training works: no finding is an error."""
    return all(f.level != "error" for f in findings)


def report(findings: list[Finding]) -> str:
    """The findings as text, each remedy under its finding."""
    marks = {"ok": "[ok]   ", "note": "[note] ", "error": "[ERROR]"}
    return "\n".join(f"{marks[f.level]} {f.text}" + (f"\n        -> {f.remedy}" if f.remedy else "") for f in findings)


def collectable(findings: list[Finding], device: str = "auto") -> str:
    """The findings, and what `device` is, as one line of JSON: many machines' lines make a file of JSON Lines.

    Where `device` cannot be used, the environment is the CPU's. `host` is the computer's name in its network.
    """
    try:
        picked = pick_device(device)
    except ValueError:  # a finding says so
        picked = torch.device("cpu")
    here = environment(picked) | {"host": platform.node()}
    found = [dataclasses.asdict(f) for f in findings]
    return json_format.dumps({"works": works(findings), "environment": here, "findings": found})


def run(
    device: Annotated[str, "the device to train on"] = "auto",
    json: Annotated[bool, "print it as one line of JSON, for a script to collect"] = False,
) -> int:
    """Prints the report, or one line of JSON; 0 if training works, else 1.

    The JSON stands alone on standard output, for a script that collects it over ssh. So it needs no file, as that of
    `train --json` does, whose standard output has the losses. What else would be printed goes to standard error.
    """
    with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        findings = diagnose(device)
        text = collectable(findings, device) if json else report(findings)
    print(text)
    return 0 if works(findings) else 1


@examination
def gpu() -> Iterator[Finding]:
    found = accelerator()
    failure = (ends_its_process(found) or kernel_error(found)) if found else None
    if failure:
        yield note(*why_no_kernel(found, failure))
        return
    if found is None:
        reason = why_no_gpu()
        healthy = ok("No GPU is here. Every chapter works without one and shows recorded results beside.")
        yield note(*reason) if reason else healthy
        return
    module = getattr(torch, found.type)
    name = module.get_device_name() if hasattr(module, "get_device_name") else found.type
    yield ok(f"{torch.accelerator.device_count()} GPU(s) of type {found.type}, a kernel runs: {name}.")
    if found.type == "cuda":
        major, minor = torch.cuda.get_device_capability()
        driver = next((g["driver_version"] for g in nvidia_smi()[0]), "unknown")
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
        yield ok(f"Compute capability {major}.{minor}, driver {driver}, PyTorch built for {built}.")
        free, total = torch.cuda.mem_get_info()
        if free < GPU_BYTES_NEEDED:
            text = f"GPU memory is nearly full: {free / 2**20:.0f} of {total / 2**20:.0f} MiB are free"
            yield note(f"{text}, and a notebook needs about {GPU_BYTES_NEEDED / 2**20:.0f}.", OTHERS)
        else:
            yield ok(f"GPU memory: {free / 2**30:.1f} of {total / 2**30:.1f} GiB are free.")


@examination
def threads() -> Iterator[Finding]:
    set_to, cpus = torch.get_num_threads(), usable_cpus()
    if set_to <= cpus:
        yield ok(f"{set_to} thread(s) for {cpus} usable CPU(s).")
    else:
        yield note(
            f"PyTorch would use {set_to} threads, but this process may use only {cpus} CPU(s); threads that wait "
            "for each other then take the time of those that work.",
            f"Set OMP_NUM_THREADS={cpus} or less, or call torch.set_num_threads; this course sets 1 by itself.",
        )


@examination
def openmp() -> Iterator[Finding]:
    """In conda's numpy there may be a second one beside PyTorch's; importing PyTorch has imported it."""
    found = sorted(str(path) for path in _loaded_libraries() if LLVMS_OPENMP.match(path.name))
    if len(found) > 1:
        yield note(
            f"{len(found)} OpenMP runtimes are in this process: {', '.join(found)}. Used both, they may end it "
            'with "OMP: Error #15". A notebook says then only that its kernel died.',
            "Install all packages from one place: the course in a virtual environment of its own, outside conda "
            "(`make lab`). KMP_DUPLICATE_LIB_OK=TRUE, which the error names, may give wrong results.",
        )


def _loaded_libraries() -> set[Path]:
    """The files of the libraries that this process has loaded, links resolved: of two names of one there is one."""
    if sys.platform == "linux":
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
        found = [line.split(maxsplit=5)[5] for line in lines if "/" in line]
    elif sys.platform == "darwin":
        system = ctypes.CDLL(None)
        system._dyld_get_image_name.restype = ctypes.c_char_p
        found = [os.fsdecode(system._dyld_get_image_name(i)) for i in range(system._dyld_image_count())]
    else:
        import psutil  # here: it costs some milliseconds, and every command imports the doctor

        found = [part.path for part in psutil.Process().memory_maps()]
    return {Path(path).resolve() for path in found}


@examination
def torchvision() -> Iterator[Finding]:
    try:
        yield ok(f"torchvision {import_module('torchvision').__version__} goes with this torch.")
    except Exception as failure:  # what a torchvision of another build raises depends on where they differ
        yield note(
            f"torchvision cannot be imported: {failure}. It is needed by chapters 03 and 04, and by the textbook's "
            "data pipeline.",
            f"Uninstall torch and torchvision, and install both in one command, from one place: {PYTORCH}",
        )


@examination
def data() -> Iterator[Finding]:
    try:
        for train in (True, False):
            load_mnist(train)
        yield ok("MNIST is here, and its checksums are right.")
    except (OSError, ValueError) as failure:
        yield error(f"MNIST cannot be read: {failure}", "See data/README.md.")
