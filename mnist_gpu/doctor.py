"""What is here, what is wrong with it, and what to do about it: `python -m mnist_gpu doctor`.

An examination is a generator of findings; `EXAMINATIONS` lists those that `diagnose` makes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Annotated

import torch

from mnist_gpu.data import load_mnist
from mnist_gpu.device import accelerator, describe, device_name, environment, kernel_error, pick_device
from mnist_gpu.webgpu.gpu import adapters
from mnist_gpu.why_no_gpu import PYTORCH, why_no_gpu, why_no_kernel


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
    if all(f.level != "error" for f in findings):
        findings.append(ok(f"Training works here, on {describe(picked).removeprefix('Device: ')}."))
    return findings


def report(findings: list[Finding]) -> str:
    """The findings as text, each remedy under its finding."""
    marks = {"ok": "[ok]   ", "note": "[note] ", "error": "[ERROR]"}
    return "\n".join(f"{marks[f.level]} {f.text}" + (f"\n        -> {f.remedy}" if f.remedy else "") for f in findings)


def run(device: Annotated[str, "the device to train on"] = "auto") -> int:
    """Prints the report; returns 0 if training works, else 1."""
    print(report(findings := diagnose(device)))
    return int(any(f.level == "error" for f in findings))


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
        # In one process: about 500 for CUDA's own context and 100 for data and network.
        yield ok(f"GPU memory: {free:,.0f} of {total:,.0f} MiB are free, and a notebook needs about 700.")


def webgpu() -> Iterator[Finding]:
    """The GPUs that PyTorch may not use, but that a reader has: a laptop's, say."""
    found, reason = adapters()
    for one in (a for a in found if a.kind != "software"):
        yield ok(f"WebGPU finds {one}, in the computer that runs this.")
    if reason:
        yield ok(f"WebGPU finds no GPU: {reason}.")


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


EXAMINATIONS = (gpu, webgpu, torchvision, data)
