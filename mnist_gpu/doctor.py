"""What is here, what is wrong with it, and what to do about it: `python -m mnist_gpu doctor`.

An examination is a generator of findings; `EXAMINATIONS` lists those that `diagnose` makes.
"""

import contextlib
import ctypes
import dataclasses
import json as json_format
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated

import psutil
import torch

from mnist_gpu.data import load_mnist
from mnist_gpu.device import accelerator, describe, device_name, environment, kernel_error, pick_device, usable_cpus
from mnist_gpu.webgpu.gpu import adapters
from mnist_gpu.why_no_gpu import GPU_MIB_NEEDED, OTHERS, PYTORCH, why_no_gpu, why_no_kernel

# Intel's and LLVM's OpenMP, one program under two names, does not bear a second copy of itself. GCC's (libgomp) does.
LLVMS_OPENMP = re.compile(r"lib(iomp5|omp)(md|140\.x86_64)?(-\w+)?\.(dll|so|dylib)", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """level: "ok", "note" (works, could be better) or "error" (training does not work). remedy: what to do."""

    level: str
    text: str
    remedy: str = ""


ok, note, error = (partial(Finding, level) for level in ("ok", "note", "error"))


def diagnose(device: str = "auto") -> list[Finding]:
    """Examines the machine, and training on `device`; the last finding says whether training works."""
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


def run(
    device: Annotated[str, "the device to train on"] = "auto",
    json: Annotated[bool, "print it as one line of JSON, for a script to collect"] = False,
) -> int:
    """Prints the report, or one line of JSON, with the computer's name and environment; 0 if training works, else 1.

    Only the JSON goes to standard output, for a script that collects it over ssh; the rest goes to standard error.
    """
    with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        text = report(findings := diagnose(device))
        if json:
            picked = torch.device("cpu")
            with contextlib.suppress(ValueError):  # a finding says so
                picked = pick_device(device)
            found = {"works": works(findings), "environment": environment(picked) | {"host": platform.node()}}
            text = json_format.dumps(found | {"findings": [dataclasses.asdict(f) for f in findings]})
    print(text)
    return 0 if works(findings) else 1


def gpu() -> Iterator[Finding]:
    if (found := accelerator()) is None:
        healthy = ok("No GPU is here. Every chapter works without one and shows recorded results beside.")
        yield note(*reason) if (reason := why_no_gpu()) else healthy
        return
    if failure := kernel_error(found):
        yield note(*why_no_kernel(found, failure))
        return
    yield ok(f"{torch.accelerator.device_count()} GPU(s) of type {found.type}, a kernel runs: {device_name(found)}.")
    if found.type == "cuda":
        e = environment(found)
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
        yield ok(f"Compute capability {e['capability']}, driver {e['driver'] or 'unknown'}, PyTorch built for {built}.")
        free, total = (n / 2**20 for n in torch.cuda.mem_get_info())
        memory = f"GPU memory: {free:,.0f} of {total:,.0f} MiB are free"
        full = note(f"{memory}, and a notebook needs about {GPU_MIB_NEEDED}.", OTHERS)
        yield full if free < GPU_MIB_NEEDED else ok(f"{memory}.")


def webgpu() -> Iterator[Finding]:
    """The GPUs that PyTorch may not use, but that a reader has: a laptop's, say."""
    found, reason = adapters()
    far = any(name in os.environ for name in ("SSH_CONNECTION", "JUPYTERHUB_USER", "COLAB_RELEASE_TAG"))
    for one in (a for a in found if a.kind != "software"):
        yield ok(f"WebGPU finds {one}{', the GPU of this server and not of your laptop' if far else ''}.")
    if reason:
        yield ok(f"WebGPU finds no GPU{' on this server' if far else ''}: {reason}.")


def threads() -> Iterator[Finding]:
    set_to, cpus = torch.get_num_threads(), usable_cpus()
    text = f"{set_to} thread(s) for {cpus} usable CPU(s)"
    remedy = f"Set OMP_NUM_THREADS={cpus} or less, or call torch.set_num_threads; this course sets 1 by itself."
    slow = note(f"{text}: threads that wait for each other take the time of those that work.", remedy)
    yield slow if set_to > cpus else ok(f"{text}.")


def openmp() -> Iterator[Finding]:
    """Conda's numpy may bring a second runtime beside PyTorch's; importing PyTorch has imported it."""
    found = sorted(str(path) for path in loaded_libraries() if LLVMS_OPENMP.fullmatch(path.name))
    if len(found) > 1:
        yield note(
            f"{len(found)} OpenMP runtimes are in this process: {', '.join(found)}. If both are used, they may end it "
            'with "OMP: Error #15", and a notebook says only that its kernel died.',
            "Install all packages from one place: the course in a virtual environment of its own, outside conda "
            "(`make lab`). KMP_DUPLICATE_LIB_OK=TRUE, which the error names, may give wrong results.",
        )


def loaded_libraries() -> set[Path]:
    """The files of the libraries in this process, links resolved: of two names of one there is one."""
    if sys.platform == "darwin":  # where psutil does not tell
        system = ctypes.CDLL(None)
        system._dyld_get_image_name.restype = ctypes.c_char_p
        found = [os.fsdecode(system._dyld_get_image_name(i)) for i in range(system._dyld_image_count())]
    else:
        found = [part.path for part in psutil.Process().memory_maps()]
    return {Path(path).resolve() for path in found}


def torchvision() -> Iterator[Finding]:
    try:
        yield ok(f"torchvision {import_module('torchvision').__version__} goes with this torch.")
    except Exception as failure:  # what a torchvision of another build raises depends on where they differ
        yield note(
            f"torchvision cannot be imported: {failure}. The textbook's pipeline, which most chapters time, needs it.",
            f"Uninstall torch and torchvision, and install both in one command, from one place: {PYTORCH}",
        )


def data() -> Iterator[Finding]:
    try:
        for train in (True, False):
            load_mnist(train)
        yield ok("MNIST is here, and its checksums are right.")
    except (OSError, ValueError) as failure:
        yield error(f"MNIST cannot be read: {failure}", "See data/README.md.")


EXAMINATIONS = (gpu, webgpu, threads, openmp, torchvision, data)
