"""What GPUs WebGPU finds, and one of them to compute on: arrays, kernels and calls, run by a process of its own.

gpu = Gpu()                                    # the best, or Gpu("Iris") by a part of its name
a, out = gpu.array(numbers), gpu.array(1000)   # from a numpy array, or as many zeros, float32
gpu.run([Call(gpu.kernel("copy"), (a, out), (4,))])
out.read()
"""

import contextlib
import functools
import itertools
import os
import pickle
import platform
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy

HERE = Path(__file__).resolve().parent
CHOICE = "MNIST_GPU_WEBGPU"  # the variable with the name of the adapter to use, where the best is not the right one
SECONDS = 60.0  # after which a request that has no answer counts as hanging
SOFTWARE = ("llvmpipe", "swiftshader", "basic render", "lavapipe")
KINDS = {"DiscreteGPU": "discrete", "IntegratedGPU": "integrated", "CPU": "software"}
BEST = ("discrete", "integrated", "unknown", "software")
WHAT_TO_TRY = "Try again, with a smaller batch or network; then update the graphics driver, or use the CPU."
OPENED = {}  # by name, what the_gpu has opened


class WebGPUError(OSError):
    """There is no GPU through WebGPU, or it failed. The text names it, and what to try."""


class Adapter(NamedTuple):
    """A GPU as a driver offers it."""

    number: int  # in the driver's list
    name: str  # "Intel(R) Iris(R) Xe Graphics"
    kind: str  # discrete, integrated, unknown, or software: a program that acts as a GPU, on the CPU
    backend: str  # Vulkan, Metal, D3D12, OpenGL
    largest_buffer: int  # bytes

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, {self.backend})"


class Array:
    """Memory on the GPU, with a shape and a type of numpy's."""

    def __init__(self, child: "Child", content: numpy.ndarray):
        self.child, self.shape, self.dtype, self.size = child, content.shape, content.dtype, content.nbytes
        self.name = next(child.names)
        child.ask("buffer", self.name, -(-self.size // 4) * 4)
        if content.any():
            self.write(content)

    def write(self, content: numpy.ndarray) -> None:
        """New values from the beginning on. Raises ValueError for more than there is room for."""
        if content.nbytes > self.size:
            raise ValueError(f"{content.nbytes:,} bytes are written, but there is room for {self.size:,}")
        self.child.ask("write", self.name, content.tobytes() + bytes(-content.nbytes % 4))

    def read(self) -> numpy.ndarray:
        """Waits for the work that writes it, and copies it to the computer's memory."""
        content = self.child.ask("read", self.name)[: self.size]
        return numpy.frombuffer(content, self.dtype).reshape(self.shape).copy()

    def release(self) -> None:
        self.child.ask("release", self.name)


class Call(NamedTuple):
    """A kernel to be run: on these arrays, by so many workgroups (up to three numbers), with these int and float."""

    kernel: int
    arrays: Sequence[Array]
    workgroups: Sequence[int]
    numbers: Sequence[int | float] = ()


class Child:
    """The process that owns the driver. It ends with this one, or when a request takes too long."""

    def __init__(self, adapter: str = "WebGPU"):
        self.adapter, self.patience, self.names, self.lock = adapter, SECONDS, itertools.count(), threading.Lock()
        self.words = tempfile.TemporaryFile()  # noqa: SIM115 - what the driver says
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.words}
        self.process = subprocess.Popen([sys.executable, "-P", str(HERE / "child.py")], **pipes)
        self.close = weakref.finalize(self, _end, self.process, self.words)  # at the end of this process, too

    def ask(self, method: str, *arguments):
        """The answer to one request. Raises WebGPUError if the driver refuses, crashes or hangs."""
        with self.lock:
            begin, watch = time.monotonic(), threading.Timer(self.patience, self.process.kill)
            watch.start()
            try:
                pickle.dump((method, arguments), self.process.stdin)
                self.process.stdin.flush()
                worked, answer = pickle.load(self.process.stdout)
            except (OSError, EOFError, pickle.UnpicklingError, ValueError):
                worked, answer = False, self.last_words(time.monotonic() - begin >= self.patience)
            except BaseException:  # interrupted: the answer would be taken for the next request's
                self.process.kill()
                raise
            finally:
                watch.cancel()
        if not worked:
            raise WebGPUError(f"{self.adapter}: {answer}")
        return answer

    def last_words(self, late: bool) -> str:
        self.process.kill()
        status = self.process.wait()
        if late:
            return f"no answer within {self.patience:g} seconds. {WHAT_TO_TRY}"
        self.words.seek(0)
        said = self.words.read().decode("utf-8", "replace").strip().splitlines()
        return f"the driver ended its process (status {status}{': ' + said[-1] if said else ''}). {WHAT_TO_TRY}"


def _end(process: subprocess.Popen, words: BinaryIO) -> None:
    process.kill()
    process.wait()
    for file in (process.stdin, process.stdout, words):
        with contextlib.suppress(OSError):  # a pipe to a process that has ended may not take what it still holds
            file.close()


class Gpu:
    """One GPU, opened in a child process.

    `name` is a part of its name; "" takes the one that MNIST_GPU_WEBGPU names, or the best that is no software. Raises
    WebGPUError if there is none, or none of that name, with the reason and what there is.
    """

    def __init__(self, name: str = ""):
        found, reason = adapters()
        name = name or os.environ.get(CHOICE, "")
        fit = [a for a in found if name.lower() in a.name.lower() and (name or a.kind != "software")]
        if not fit:
            called, there = f" is called {name!r}" if name else "", ", ".join(map(str, found)) or "none"
            raise WebGPUError(f"no GPU through WebGPU{called} ({reason or 'none of that name'}); there are: {there}")
        self.adapter, self.name, self.kernels = fit[0], fit[0].name, {}
        self.child = Child(str(self.adapter))
        self.ask, self.close = self.child.ask, self.child.close
        self.ask("open", self.adapter.number)

    def array(self, content: numpy.ndarray | int) -> Array:
        """Memory on the GPU with this content, or so many zeros in float32. Raises WebGPUError beyond its limit."""
        if isinstance(content, int):
            content = numpy.zeros(content, numpy.float32)
        if content.nbytes > (most := self.adapter.largest_buffer):
            raise WebGPUError(
                f"{self.name}: {content.nbytes:,} bytes asked for at once, but it allows {most:,} at most"
            )
        return Array(self.child, content)

    def kernel(self, name: str) -> int:
        """A kernel of this package by its name, or any in WGSL. Raises WebGPUError if it does not compile."""
        if name not in self.kernels:
            new = next(self.child.names)
            self.ask("kernel", new, source(name) if name.isidentifier() else name)
            self.kernels[name] = new
        return self.kernels[name]

    def submit(self, calls: Sequence[Call], each: int = 0) -> None:
        """Asks for the calls in their order, in one submission, or `each` calls in one, and does not wait for them."""
        packed = []
        for c in calls:
            numbers = (struct.pack("<f" if isinstance(n, float) else "<I", n) for n in c.numbers)
            packed.append((c.kernel, [a.name for a in c.arrays], tuple(c.workgroups), b"".join(numbers)))
        self.ask("submit", packed, each)

    def wait(self) -> None:
        """Until all that was asked for is done."""
        self.ask("wait")

    def run(self, calls: Sequence[Call], each: int = 0) -> None:
        """`submit`, then `wait`."""
        self.submit(calls, each)
        self.wait()


def source(kernel: str) -> str:
    """The text of a kernel of this package, in WGSL."""
    return (HERE / "kernels" / f"{kernel}.wgsl").read_text(encoding="utf-8")


@functools.cache
def adapters() -> tuple[list[Adapter], str]:
    """The GPUs that WebGPU finds, the best first, each once; and why there is none that is no software, or ""."""
    if find_spec("wgpu") is None:
        return [], "the package wgpu is not installed: `python -m pip install wgpu`"
    child = Child()
    try:
        offered = child.ask("adapters")
    except WebGPUError as error:
        return [], str(error)
    finally:
        child.close()
    found = {}
    for number, a in enumerate(offered):
        software = any(word in f"{a['device']} {a['vendor']}".lower() for word in SOFTWARE)
        kind = "software" if software else KINDS.get(a["adapter_type"], "unknown")
        largest = min(a["max-buffer-size"], a["max-storage-buffer-binding-size"])
        one = Adapter(number, a["device"], kind, a["backend_type"], largest)
        if one.name not in found or found[one.name].backend == "OpenGL":  # the other ways lead to the same GPU
            found[one.name] = one
    every = sorted(found.values(), key=lambda a: BEST.index(a.kind))
    if any(a.kind != "software" for a in every):
        return every, ""
    if every:
        return every, f"only {every[0].name}, a program that acts as a GPU on the CPU"
    vulkan = "; it takes libvulkan1 and the GPU's Vulkan driver (Debian: mesa-vulkan-drivers)"
    missing = f"no driver for it{vulkan if platform.system() == 'Linux' else ''}"
    return every, f"{missing}. A container sees no GPU unless it is given one"


def webgpu_missing() -> str | None:
    """Why there is no GPU to compute on through WebGPU, or None. Software counts only if MNIST_GPU_WEBGPU names it."""
    found, reason = adapters()
    if choice := os.environ.get(CHOICE, ""):
        reason = "" if any(choice.lower() in a.name.lower() for a in found) else f"none is called {choice!r}"
    return f"needs a GPU through WebGPU: {reason}" if reason else None


def the_gpu(name: str = "") -> Gpu:
    """A GPU that is opened once, and again if its process has ended. Raises as Gpu does."""
    if name not in OPENED or OPENED[name].child.process.poll() is not None:
        OPENED[name] = Gpu(name)
    return OPENED[name]
