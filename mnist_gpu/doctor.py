"""What is here, what is wrong with it, and what to do about it: `python -m mnist_gpu doctor`.

An examination is a generator of findings; `@examination` adds it to those that `diagnose` makes.
"""

import contextlib
import dataclasses
import json as json_format
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import torch

from mnist_gpu.device import accelerator, describe, environment, kernel_error, nvidia_smi, pick_device, usable_cpus
from mnist_gpu.mnist import load_mnist

# What a training in one process needs on a GPU: about 500 MiB for CUDA's own context and 100 for data and network.
GPU_BYTES_NEEDED = 700 * 2**20
INSTALL = "https://pytorch.org/get-started/locally"
OTHERS = "Shut down other notebooks and programs that use this GPU (`nvidia-smi` lists them)."


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


def run(device: str = "auto", json: bool = False) -> int:
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
    failure = kernel_error(found) if found else None
    if found is None or failure:
        yield _why_no_kernel(found, failure) if found else _why_no_gpu()
        return
    module = getattr(torch, found.type)
    name = module.get_device_name() if hasattr(module, "get_device_name") else found.type
    yield ok(f"{torch.accelerator.device_count()} GPU(s) of type {found.type}, a kernel runs: {name}.")
    if found.type == "cuda":
        major, minor = torch.cuda.get_device_capability()
        driver = next((g["driver_version"] for g in nvidia_smi()), "unknown")
        built = f"PyTorch built for CUDA {torch.version.cuda}"
        yield ok(f"Compute capability {major}.{minor}, driver {driver}, {built}.")
        free, total = torch.cuda.mem_get_info()
        if free < GPU_BYTES_NEEDED:
            text = f"GPU memory is nearly full: {free / 2**20:.0f} of {total / 2**20:.0f} MiB are free"
            yield note(f"{text}, and a notebook needs about {GPU_BYTES_NEEDED / 2**20:.0f}.", OTHERS)
        else:
            yield ok(f"GPU memory: {free / 2**30:.1f} of {total / 2**30:.1f} GiB are free.")


def _why_no_gpu() -> Finding:
    """PyTorch reports no GPU: is there none, or can it not use the one that is there?"""
    cards = nvidia_smi()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if cards and hidden is not None and torch.version.cuda and not _names_a_card(hidden, len(cards)):
        return note(
            f"{len(cards)} NVIDIA GPU(s) are here ({cards[0]['name']}); CUDA_VISIBLE_DEVICES={hidden!r} hides them.",
            "`unset CUDA_VISIBLE_DEVICES`, or set it to the numbers of the GPUs to use, such as 0.",
        )
    if cards and torch.version.cuda is None:
        return note(
            f"An NVIDIA GPU is here ({cards[0]['name']}), but this PyTorch ({torch.__version__}) "
            "is built for the CPU only.",
            f"Install a CUDA build of torch and torchvision: {INSTALL}",
        )
    if cards:
        return note(
            f"An NVIDIA GPU is here ({cards[0]['name']}), but its driver ({cards[0]['driver_version']}) does not work "
            f"with this PyTorch, which is built for CUDA {torch.version.cuda}; most likely the driver is too old.",
            f"Update the NVIDIA driver, or install a PyTorch built for an older CUDA: {INSTALL}",
        )
    if torch.backends.mps.is_built() and not torch.backends.mps.is_available():
        return note(
            "This PyTorch is built for Apple's GPU (MPS), but the GPU cannot be used.",
            "It needs macOS 14 or newer on an Apple-silicon Mac, and a Python that is not run through Rosetta.",
        )
    if torch.xpu._is_compiled():
        return note(
            "This PyTorch is built for Intel GPUs (XPU), but finds none that it can use.",
            "If an Intel GPU is here, install its driver and check that your user may use /dev/dri/render*.",
        )
    return ok("No GPU is here. Every chapter works without one and shows recorded results beside.")


def _names_a_card(visible: str, cards: int) -> bool:
    """Whether CUDA_VISIBLE_DEVICES leaves a card visible: CUDA reads it up to the first entry that names none."""
    first = visible.split(",")[0].strip()
    return first.startswith(("GPU-", "MIG-")) or (first.isdecimal() and int(first) < cards)


def _serves(arch: str, card: tuple[int, int]) -> bool:
    """Whether code for `arch` ("sm_86", "sm_90a", "compute_90") runs on a card of that compute capability.

    Machine code (sm) runs on newer cards of the same major version, PTX (compute) on all newer ones, and code for one
    architecture alone (a letter at the end) on no other (CUDA C++ Programming Guide, section "Compute Capability").
    """
    kind, number = arch.split("_")
    digits = number.rstrip("abcdefghijklmnopqrstuvwxyz")
    built = (int(digits[:-1]), int(digits[-1]))
    if digits != number:
        return built == card
    return built <= card if kind == "compute" else built[0] == card[0] and built[1] <= card[1]


def _why_no_kernel(found: torch.device, failure: str) -> Finding:
    """PyTorch reports a GPU, but a kernel fails on it."""
    if found.type == "cuda" and torch.version.cuda:
        major, minor = torch.cuda.get_device_capability()
        built = torch.cuda.get_arch_list()
        if not any(_serves(arch, (major, minor)) for arch in built):
            return note(
                f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}, for which this PyTorch "
                f"({torch.__version__}) holds no code (it has {', '.join(built)}). Training falls back to the CPU.",
                f"Install a build for this card (an older release for an old card, a newer for a new): {INSTALL}",
            )
        try:
            free, total = torch.cuda.mem_get_info()
            memory = f"{free / 2**20:.0f} of {total / 2**20:.0f} MiB free"
        except RuntimeError:  # asking needs some memory too
            free, memory = 0 if "out of memory" in failure else GPU_BYTES_NEEDED, "too little to ask how much is free"
        if free < GPU_BYTES_NEEDED:
            return note(f"GPU memory is full: {memory}, no kernel runs ({failure}).", OTHERS)
    return note(
        f"PyTorch reports a {found.type} GPU, but no kernel runs on it: {failure}. Training falls back to the CPU.",
        f"Restart the machine or container; then update the driver and PyTorch: {INSTALL}",
    )


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
def torchvision() -> Iterator[Finding]:
    try:
        yield ok(f"torchvision {import_module('torchvision').__version__} goes with this torch.")
    except Exception as failure:  # what a torchvision of another build raises depends on where they differ
        yield note(
            f"torchvision cannot be imported: {failure}. It is needed by chapters 03 and 04, and by the textbook's "
            "data pipeline.",
            f"Uninstall torch and torchvision, and install both in one command, from one place: {INSTALL}",
        )


@examination
def data() -> Iterator[Finding]:
    try:
        for train in (True, False):
            load_mnist(train)
        yield ok("MNIST is here, and its checksums are right.")
    except (OSError, ValueError) as failure:
        yield error(f"MNIST cannot be read: {failure}", "See data/README.md.")
