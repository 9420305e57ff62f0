"""Times the course and other libraries on the same training, an epoch each in turn, and records them."""

import contextlib
import datetime
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
from libraries import OURS, PEERS, lines_of_code, torch_model, weights_of
from torch import nn

from mnist_gpu.checks import writable
from mnist_gpu.data import TRAIN_IMAGES, load_mnist, make_batches, normalize
from mnist_gpu.device import describe, environment, pick_device, set_threads, using_threads
from mnist_gpu.faster.ladder import PLAIN, RUNGS, WIDE, plain
from mnist_gpu.measuring import results
from mnist_gpu.measuring.results import Results, Skipped, Timed, comparisons
from mnist_gpu.measuring.timing import alternate, in_turn
from mnist_gpu.measuring.workloads import train_part
from mnist_gpu.model import make_model
from mnist_gpu.training import evaluate

TOLERANCE = 0.15  # of the plain loop's test loss after one epoch; other orders of the images change it by a tenth
# One thread everywhere. A process that may run on one CPU only is held to it by the system as well, where it can be.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "KERAS_TORCH_DEVICE": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}
epochs = []  # in a peer's process: the function that trains one pass


class Peer:
    """A peer in a process of its own: `first()` trains its first pass and returns what that gave, a call another one.

    `rung` is the course's, for "fastest rung". Raises RuntimeError with the library's error, or if the process ends.
    """

    def __init__(self, name: str, *rung: str):
        self.compiled = tempfile.TemporaryDirectory()  # empty, or the first use of a rung would find it compiled
        deaf = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}  # this program ends it
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), **deaf)
        with variables(ONE_THREAD, TORCHINDUCTOR_CACHE_DIR=self.compiled.name):  # read when libraries are imported
            self.process = psutil.Process(self.pool.submit(os.getpid).result())
        self.first = partial(self._ask, first_epoch, name, *rung)

    def __call__(self) -> None:
        self._ask(next_epoch)

    def _ask(self, function: Callable, *arguments) -> object:
        try:
            return self.pool.submit(explained, function, *arguments).result()
        except KeyboardInterrupt:
            self.process.kill()  # in the middle of an epoch, or of compiling
            raise

    def close(self) -> None:
        self.pool.shutdown()
        self.compiled.cleanup()


@contextlib.contextmanager
def variables(*dictionaries: dict[str, str], **more: str) -> Iterator[None]:
    """Environment variables for what is started in the block."""
    before = dict(os.environ)
    for some in (*dictionaries, more):
        os.environ.update(some)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def explained(function: Callable, *arguments) -> object:
    """In a peer's process: calls a function. An error of a library's own kind could not be read in another process."""
    try:
        return function(*arguments)
    except Exception as error:
        raise RuntimeError(" ".join(f"{type(error).__name__}: {error}".split())[:200]) from None


def first_epoch(name: str, *rung: str) -> dict[str, float]:
    """In a peer's process, which is held to one CPU and silenced: seconds of its first pass, and what it learned."""
    with open(os.devnull, "wb") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    set_threads(1)
    pixels, labels = load_mnist(train=True)
    weights = [w.copy() for w in weights_of(make_model())]
    epoch, get_weights = PEERS[name][0](normalize(pixels).flatten(1).numpy(), labels.numpy(), weights, *rung)
    epochs.append(epoch)
    start = time.perf_counter()
    epoch()
    seconds = time.perf_counter() - start
    learned = nn.Sequential(nn.Flatten(), torch_model([torch.tensor(np.asarray(w)).numpy() for w in get_weights()]))
    loss, accuracy = evaluate(learned, make_batches("device", train=False, batch_size=1000, seed=None))
    return {"seconds": seconds, "test_loss": loss, "test_accuracy": accuracy}


def next_epoch() -> None:
    """In a peer's process."""
    epochs[0]()


def fastest_rung() -> str:
    """The course's fastest rung in float32 on one thread: a short measurement, of what has the images in memory."""
    cpu, sides = torch.device("cpu"), {}
    expected = train_part(plain(cpu), 100).losses
    for rung in RUNGS[[rung.name for rung in RUNGS].index(PLAIN) :]:
        if not rung.missing(cpu) and rung.name not in WIDE[1:]:
            with contextlib.suppress(Exception):  # torch.compile raises many kinds
                side = partial(train_part, rung.make(cpu), 100)
                if all(abs(a - b) <= rung.tolerance for a, b in zip(side().losses, expected, strict=True)):
                    sides[rung.name] = side
    seconds = alternate(sides, rounds=5)
    return min(seconds, key=lambda name: statistics.median(seconds[name]))


def measure(names: Iterable[str] = PEERS, *, rounds: int = 10, progress: Callable = iter) -> Iterator[Timed | Skipped]:
    """The peers called `names`, the first of them as the one that they are compared with."""
    running, first, proofs = {}, {}, {}
    try:
        for name in progress(names := list(names)):
            rung = [fastest_rung()] if name == OURS[1] else []
            running[name] = Peer(name, *rung)
            try:
                answer = running[name].first()
                first[name] = answer.pop("seconds")
                proofs[name] = answer | {"lines_of_code": lines_of_code(name, *rung)}
                if rung:
                    proofs[name]["rung"] = rung[0]
                if names[0] not in proofs:
                    raise RuntimeError(f"there is nothing to compare with, since {names[0]} failed")
                loss, expected = answer["test_loss"], proofs[names[0]]["test_loss"]
                if not abs(loss / expected - 1) <= TOLERANCE:
                    raise RuntimeError(f"another training: its test loss is {loss:.3f}, not about {expected:.3f}")
            except RuntimeError as error:
                running.pop(name).close()
                yield Skipped("peers", name, "cpu", f"failed: {error}")
        sizes, work = {"batch_size": 128, "hidden": 128}, {"images": TRAIN_IMAGES}
        for name, seconds in in_turn(running, rounds=rounds, warmup=0, progress=progress):
            yield Timed("peers", name, "cpu", 1, seconds, sizes, work, first[name], proofs[name])
    finally:
        for peer in running.values():
            peer.close()


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Every peer with the plain loop, and JAX with the fastest rung."""
    return [(OURS[0], name) for name in names] + [(name, OURS[1]) for name in names if name.startswith("JAX")]


@using_threads(1)
def run(record: Path | None = None, progress: Callable = iter) -> None:
    """Measures and prints what differs; with `record` adds it to what is recorded there.

    An interrupt keeps what is finished. Raises ValueError, before measuring, if the file cannot be written, or is of
    another machine or program.
    """
    writable(record)
    device = pick_device()
    measured = Results(environment(device), [], datetime.date.today().isoformat())
    before = results.read(record) if record and record.exists() else Results(measured.environment, [], measured.date)
    results.merged(before, measured)
    print(describe(device))
    try:
        for one in measure(progress=progress):
            (measured.skipped if isinstance(one, Skipped) else measured.measurements).append(one)
    except KeyboardInterrupt:
        print("interrupted; keeping what is finished")
    if record and measured.measurements:
        results.write(record, results.merged(before, measured))
        print(f"Recorded {len(measured.measurements)} measurements in {record}")
    for line in comparisons(measured, "cpu", "peers", pairs):
        print(measured.hardware("cpu") + line)
    for one in measured.skipped:
        print(f"skipped: {one.name}: {one.reason}")
