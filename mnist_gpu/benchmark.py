"""`python -m mnist_gpu benchmark`: the measurements behind the chapters, under the rules of a fair comparison.

Every section is a generator of `Timed` measurements, so that what is finished is kept when a run is interrupted.
The chapters call the same sections with smaller settings.
"""

import datetime
import itertools
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import torch

from mnist_gpu.data import PIPELINES, TRAIN_IMAGES, DeviceBatches, load_mnist, make_batches
from mnist_gpu.device import environment, set_threads, synchronize, usable_cpus
from mnist_gpu.model import make_model, step_bytes, step_flops
from mnist_gpu.results import Results, Timed
from mnist_gpu.timing import alternate, compare, measure
from mnist_gpu.training import make_step, train

TEXTBOOK, FLOOR = "dataloader", "matrix products alone"


def thread_counts(device: torch.device) -> list[int]:
    """On a CPU one thread and all usable ones, since the work decides which is faster; on a GPU one, to feed it."""
    return sorted({1, usable_cpus()}) if device.type == "cpu" else [1]


def ceilings(
    device: torch.device, *, sizes=(64, 128, 256, 512, 1024, 2048), mebibytes=(1, 4, 16, 64, 256), seconds=0.2
) -> Iterator[Timed]:
    """The two limits of a device, float32: matrix products of n x n (2 n^3 FLOP), and copies (read and written bytes).

    Also how soon the call of the largest product returns, and on a GPU transfers from pageable and pinned host memory.
    """
    for threads in thread_counts(device):
        set_threads(threads)

        def timed(name, function, parameters, per_call, threads=threads):
            found = measure(function, min_seconds=seconds)
            return Timed("ceilings", name, device.type, threads, list(found.times), parameters, per_call)

        for n in sizes:
            a, b = torch.rand(n, n, device=device), torch.rand(n, n, device=device)
            out = torch.empty_like(a)
            product = lambda a=a, b=b, out=out: torch.mm(a, b, out=out)  # noqa: E731
            yield timed("matrix product", product, {"size": n}, {"flop": 2 * n**3})
        # The largest product again, timed as many do it: without waiting for the device. On a GPU this is the launch.
        yield Timed("ceilings", "launch", device.type, threads, launch_seconds(product, device), {"size": n})
        for mib in mebibytes:
            a = torch.ones(mib * 2**18, device=device)  # 2^18 numbers of 4 bytes
            out = torch.empty_like(a)
            copy = lambda a=a, out=out: out.copy_(a)  # noqa: E731
            yield timed("copy", copy, {"mebibytes": mib}, {"bytes": 2 * mib * 2**20})
            if device.type in ("cuda", "xpu"):
                for kind in ("pageable", "pinned"):
                    host = torch.ones(mib * 2**18, pin_memory=kind == "pinned")
                    transfer = lambda host=host, out=out: out.copy_(host)  # noqa: E731
                    yield timed(f"transfer, {kind}", transfer, {"mebibytes": mib}, {"bytes": mib * 2**20})


def launch_seconds(function: Callable[[], object], device: torch.device, repeats: int = 20) -> list[float]:
    """How long calls of `function` take to return, which on a GPU is before their work is done; in seconds."""
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    synchronize(device)
    return seconds


def pipelines(
    device: torch.device, *, batches=100, rounds=10, workers=(2,), progress: Callable = iter
) -> Iterator[Timed]:
    """What it costs to make batches of 128 without training on them: `batches` of every pipeline, one thread."""
    set_threads(1)
    sides = {kind: make_batches(kind, device=device) for kind in PIPELINES}
    for kind in ("dataloader", "memory"):  # pinning changes nothing on a CPU; measured all the same, to show it
        sides[f"{kind}, pinned"] = make_batches(kind, device=device, pin_memory=True)
    for n in workers:
        sides[f"dataloader, {n} workers"] = make_batches("dataloader", device=device, workers=n)

    def one_part(side):
        # Slices of endless passes. Workers begin each with four batches that they prepared ahead: 4 % of 100.
        stream = itertools.chain.from_iterable(itertools.repeat(side))
        return lambda: [None for _ in itertools.islice(stream, batches)]

    parts = {name: one_part(side) for name, side in sides.items()}
    pause = {"pause": lambda: time.sleep(0.1)}  # or the workers would prepare those four in the next side's time
    times = alternate(parts | pause, rounds=rounds, device=device, progress=progress)
    for name in sides:
        yield Timed("pipelines", name, device.type, 1, times[name], {"batch_size": 128}, {"images": 128 * batches})


def training_step(device: torch.device, batch_size: int, hidden: int) -> Callable[[], object]:
    """The plain step on one batch of real images that is already on the device, as a function without arguments."""
    images, labels = load_mnist(train=True)
    repeats = math.ceil(batch_size / len(images))
    images, labels = images.repeat(repeats, 1, 1)[:batch_size], labels.repeat(repeats)[:batch_size]
    batch = next(iter(DeviceBatches(images, labels, batch_size, seed=None, device=device)))
    model = make_model(hidden, device=device)
    step = make_step(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
    return lambda: step(*batch)


def sides_of(device: torch.device) -> list[tuple[torch.device, int]]:
    """Every (device, threads) to compare: the CPU with one and with all usable threads, and `device` if it is a GPU."""
    cpu = torch.device("cpu")
    return [(on, threads) for on in dict.fromkeys([cpu, device]) for threads in thread_counts(on)]


def crossover(
    device: torch.device,
    *,
    batch_sizes=(32, 128, 512, 2048),
    widths=(32, 128, 512, 2048),
    rounds=10,
    call_seconds=0.02,
    progress: Callable = iter,
) -> Iterator[Timed]:
    """Time of a training step over batch size x hidden width, data already on the device, all sides timed in turn.

    A timed call repeats the step until it takes about `call_seconds`; the times yielded are of one step.
    """
    for batch_size, hidden in progress(list(itertools.product(batch_sizes, widths))):
        calls, counts = {}, {}
        for on, threads in sides_of(device):
            step = training_step(on, batch_size, hidden)
            set_threads(threads)
            counts[on.type, threads] = count = max(1, math.ceil(call_seconds / seconds_of(step, on)))
            calls[on.type, threads] = lambda step=step, threads=threads, count=count: repeat(step, count, threads)
        times = alternate(calls, rounds=rounds, device=device, progress=iter)
        parameters = {"batch_size": batch_size, "hidden": hidden}
        work = {
            "flop": sum(step_flops(batch_size, hidden)),
            "bytes": step_bytes(batch_size, hidden),
            "images": batch_size,
        }
        for (on, threads), seconds in times.items():
            count = counts[on, threads]
            yield Timed("crossover", "step", on, threads, [s / count for s in seconds], parameters, work)


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """A rough time of one call, warm, to choose how often to repeat it."""
    return min(alternate({"it": function}, rounds=2, warmup=2, device=device)["it"])


def repeat(function: Callable[[], object], count: int, threads: int) -> None:
    """Calls `function` `count` times with `threads` threads."""
    set_threads(threads)
    for _ in range(count):
        function()


def matrix_products(device: torch.device, batch_size: int = 128, hidden: int = 128) -> Callable[[], object]:
    """The matrix products of one training step and nothing else: the floor under every step in float32."""

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, device=device)

    images, activations, logits = rand(batch_size, 784), rand(batch_size, hidden), rand(batch_size, 10)
    weights_1, weights_2 = rand(hidden, 784), rand(10, hidden)

    def products():
        images @ weights_1.t()
        activations @ weights_2.t()
        logits.t() @ activations
        logits @ weights_2
        activations.t() @ images

    return products


def ladder(
    device: torch.device, *, steps=None, rounds=10, progress: Callable = iter, kinds=PIPELINES
) -> Iterator[Timed]:
    """The same training (784-128-10, batches of 128, one thread) on every pipeline, in turn, and its floor.

    A call is `steps` steps, or a whole epoch of 469. The weights start anew every call, so all calls do the same work.
    """
    set_threads(1)
    sides = {}
    for kind in kinds:
        batches = make_batches(kind, device=device)
        sides[kind] = lambda batches=batches: train_part(device, batches, steps)
    full, products = math.ceil(TRAIN_IMAGES / 128), matrix_products(device)
    count = steps or full

    def floor():
        for _ in range(count):
            products()

    sides[FLOOR] = floor
    times = alternate(sides, rounds=rounds, device=device, progress=progress)
    images = 128 * steps if steps else TRAIN_IMAGES
    for name, seconds in times.items():
        yield Timed(
            "ladder",
            name,
            device.type,
            1,
            seconds,
            {"batch_size": 128, "hidden": 128},
            {"images": images, "steps": count},
        )


class First:
    """The first `n` batches of a pass: `for batch in First(batches, 100)`. None takes them all."""

    def __init__(self, batches: Iterable, n: int | None):
        self.batches, self.n = batches, n

    def __iter__(self):
        return itertools.islice(iter(self.batches), self.n)


def train_part(device: torch.device, batches: Iterable, steps: int | None = None):
    """One epoch, or its first `steps` steps, of the plain training from fresh weights, with no log lines printed."""
    model = make_model(device=device)
    step = make_step(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
    return train(model, step, First(batches, steps), log=lambda *_: None)


def import_seconds(repeats: int = 5) -> list[float]:
    """What `import mnist_gpu.training` takes beyond `import torch`, in fresh processes, in seconds."""
    code = "import time, torch; t = time.perf_counter(); import mnist_gpu.training; print(time.perf_counter() - t)"
    run = lambda: subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: E731
    return [float(run().stdout) for _ in range(repeats)]


SECTIONS = ("ceilings", "pipelines", "crossover", "ladder")


def benchmark(
    device: torch.device, *, quick=False, only: Iterable[str] = SECTIONS, progress: Callable = iter, say=print
) -> Results:
    """Runs the sections on the CPU, and on `device` if that is another. An interrupt ends it and keeps what is done."""
    found = Results(environment(device), [], datetime.date.today().isoformat(), quick)
    short = {"seconds": 0.02} if quick else {}
    rounds = {"rounds": 4 if quick else 10, "progress": progress}
    before = torch.get_num_threads()
    try:
        for on in dict.fromkeys([torch.device("cpu"), device]):
            sections = {
                "ceilings": lambda on=on: ceilings(on, **short),
                "pipelines": lambda on=on: pipelines(on, batches=50 if quick else 100, **rounds),
                "crossover": lambda on=on: crossover(on, **rounds),
                "ladder": lambda on=on: ladder(on, steps=50 if quick else None, **rounds),
            }
            for name in only:
                if name == "crossover" and on != device:
                    continue  # it takes all devices in turn, and is run once
                start = time.perf_counter()
                say(f"{name} on {found.hardware(on.type)} ({on.type}) ...")
                for timed in sections[name]():
                    found.measurements.append(timed)
                synchronize(on)
                say(f"{name} on {on.type}: {time.perf_counter() - start:.0f} s")
    except KeyboardInterrupt:
        say("interrupted; keeping what is finished")
    finally:
        set_threads(before)
    return found


def summary(results: Results) -> str:
    """The ratios that the course rests on, each from one run."""
    lines = []
    for device in dict.fromkeys(m.device for m in results.measurements):
        where = f"{results.hardware(device)} ({device})"
        for m in sorted(results.select("ceilings", "matrix product", device=device), key=lambda m: m.rate("flop"))[-1:]:
            lines.append(f"{where}: matrix products up to {m.rate('flop') / 1e9:,.0f} GFLOP/s ({m.threads} threads)")
        copies = results.select("ceilings", "copy", device=device)
        largest = max((m.parameters["mebibytes"] for m in copies), default=0)  # beyond the caches
        for m in sorted(copies, key=lambda m: (m.parameters["mebibytes"] == largest, m.rate("bytes")))[-1:]:
            lines.append(f"{where}: copies of {largest} MiB at {m.rate('bytes') / 1e9:,.0f} GB/s ({m.threads} threads)")
        for section in ("pipelines", "ladder"):
            times = {m.name: m.seconds for m in results.select(section, device=device)}
            pairs = [(name.removesuffix(", pinned") if "pinned" in name else TEXTBOOK, name) for name in times]
            pairs = [pair for pair in pairs if pair[0] != pair[1]]
            pairs += [("device", FLOOR)] if FLOOR in times else []
            lines += [f"{where}, {section}: {compare(times, *pair)}" for pair in pairs]
    lines.append(
        f"import mnist_gpu.training beyond torch: {statistics.median(import_seconds()) * 1000:.1f} ms (median)"
    )
    return "\n".join(lines)
