"""`python -m mnist_gpu benchmark`: the measurements behind the chapters, under the rules of a fair comparison.

Every section is a generator of `Timed` measurements, so that what is finished is kept when a run is interrupted.
The chapters call the same sections with smaller settings.
"""

import collections
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
from mnist_gpu.ensemble import make_ensemble_step
from mnist_gpu.graphs import EpochGraph
from mnist_gpu.ladder import PLAIN, TEXTBOOK, WIDE, Training, sgd, textbook
from mnist_gpu.ladder import plain as plain_training
from mnist_gpu.ladder import rungs as ladder_rungs
from mnist_gpu.model import make_model, step_bytes, step_flops
from mnist_gpu.peers import OURS, PEERS, Peer, lines_of_code
from mnist_gpu.results import Results, Skipped, Timed
from mnist_gpu.timing import alternate, compare, measure
from mnist_gpu.training import Epoch, make_step, train
from mnist_gpu.written_out import onednn_missing, onednn_product

FLOOR, FLOOR_ONEDNN = "matrix products alone", "matrix products alone, oneDNN"


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
    for name, seconds in in_turn(parts | pause, rounds=rounds, device=device, progress=progress):
        if name in sides:
            yield Timed("pipelines", name, device.type, 1, seconds, {"batch_size": 128}, {"images": 128 * batches})


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


def repeat(function: Callable[[], object], count: int, threads: int = 1) -> None:
    """Calls `function` `count` times with `threads` threads."""
    set_threads(threads)
    for _ in range(count):
        function()


def matrix_products(device: torch.device, batch_size: int = 128, hidden: int = 128, onednn=False) -> Callable:
    """The matrix products of one training step and nothing else: the floor under every step in float32.

    With `onednn` the two large ones are oneDNN's instead of those of `torch.mm` (see mnist_gpu.written_out).
    """

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, device=device)

    images, activations, logits = rand(batch_size, 784), rand(hidden, batch_size), rand(10, batch_size)
    weights_1, weights_2 = rand(hidden, 784), rand(10, hidden)
    product = onednn_product if onednn else lambda a, b: a @ b.t()

    def products():
        product(weights_1, images)
        weights_2 @ activations
        logits @ activations.t()
        weights_2.t() @ logits
        product(activations, images.t())

    return products


def ladder(
    device: torch.device, *, names: Iterable[str] | None = None, hidden=128, steps=None, rounds=10, progress=iter
) -> Iterator[Timed | Skipped]:
    """The rungs of the ladder, in turn, one thread, and the matrix products alone. See mnist_gpu.ladder.

    A timed call is a whole epoch of 469 steps, or `steps` steps. The first starts from the same weights and order on
    every rung: its losses must be those of the plain loop, or the rung is skipped. Later ones go on from there.
    """
    set_threads(1)
    count = steps or math.ceil(TRAIN_IMAGES / 128)
    chosen = ladder_rungs(names)
    plain = train_part(plain_training(device, hidden), steps).losses
    parts, first, proofs = {}, {}, {}
    for rung in progress(chosen):
        reason = rung.missing(device)
        if not reason:
            try:
                training = rung.make(device, hidden)
                start = time.perf_counter()
                losses = train_part(training, steps).losses
                first[rung.name] = time.perf_counter() - start
                differences = [abs(a - b) for a, b in zip(losses, plain, strict=True)]
                difference = max(differences)
                proofs[rung.name] = {"largest_loss_difference": difference, "tolerance": rung.tolerance}
                if not all(d <= rung.tolerance for d in differences):  # false for NaN, too
                    reason = f"is another training: its losses differ by {difference:.2g}, more than {rung.tolerance}"
            except Exception as error:  # torch.compile raises many kinds. A rung that fails is named, and not fatal.
                reason = f"failed: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        if reason:
            yield Skipped("ladder", rung.name, device.type, reason)
        else:
            parts[rung.name] = lambda training=training: train_part(training, steps)
    if steps:  # workers that were broken off prepare a few batches more: not in the next side's time
        parts["pause"] = lambda: time.sleep(0.1)
    for name, onednn in ((FLOOR, False), (FLOOR_ONEDNN, True)):
        if not (onednn and (device.type != "cpu" or onednn_missing())):
            products = matrix_products(device, 128, hidden, onednn)
            parts[name] = lambda products=products: repeat(products, count)
    work = {"images": 128 * steps if steps else TRAIN_IMAGES, "steps": count}
    sizes = {"batch_size": 128, "hidden": hidden}
    for name, seconds in in_turn(parts, rounds=rounds, warmup=0, device=device, progress=progress):
        if name != "pause":
            yield Timed("ladder", name, device.type, 1, seconds, sizes, work, first.get(name), proofs.get(name, {}))


def in_turn(sides, **options) -> Iterator[tuple[str, list[float]]]:
    """`alternate`, side by side as (name, seconds). An interrupt or error first gives what finished rounds measured."""
    seconds = {}
    try:
        alternate(sides, into=seconds, **options)
    except BaseException:
        if rounds := min(map(len, seconds.values()), default=0):
            yield from ((name, times[:rounds]) for name, times in seconds.items())
        raise
    yield from seconds.items()


def account(device: torch.device, *, sizes=None, steps=50, rounds=10, progress: Callable = iter) -> Iterator[Timed]:
    """What chapter 06 takes a training step apart into; one thread, times of one step of the 784-128-10 network.

    whole: the training itself, with the textbook's pipeline (waiting for every loss) and with the data on the device.
    load: the batches alone, not copied. copy: one batch from the host, again and again. step: one batch that is on the
    device, again and again, waiting for every loss or not; also over batch sizes, and of the smallest network there is
    (one image, one hidden unit), which is nothing but launches. with steps, on a CPU: the batches alone and the step on
    that other batch in turn, which differs from their sum by what the two do to each other's caches and predictions.
    """
    set_threads(1)
    sizes = sizes or ((1, 4, 16, 64, 256, 1024) if device.type == "cpu" else (1, 16, 256, 4096, 16384, 65536))
    host = make_batches("dataloader", device="cpu")
    on_device = make_batches("device", device=device)
    images, labels = next(iter(make_batches("device")))
    sides = {}
    for name, training in (("whole, textbook", textbook(device)), ("whole, device", plain_training(device))):
        sides[name] = lambda training=training: train_part(training, steps)
    for name, batches in (("load, textbook", host), ("load, device", on_device)):
        sides[name] = lambda batches=batches: collections.deque(First(batches, steps), maxlen=0)
    step = training_step(device, 128, 128)
    calls = {
        "copy": lambda: (images.to(device), labels.to(device)),
        "step, waiting": lambda: step().item(),
        "step": step,
        "smallest network": training_step(device, 1, 1),
    }
    calls |= {f"step of {n}": training_step(device, n, 128) for n in sizes}
    if device.type == "cpu":  # where both are done by the same processor
        sides["load, textbook, with steps"] = lambda: between(First(host, steps), calls["step, waiting"])
        sides["load, device, with steps"] = lambda: between(First(on_device, steps), step)
    sides |= {name: lambda call=call: repeat(call, steps) for name, call in calls.items()}
    batch_sizes = {f"step of {n}": n for n in sizes} | {"smallest network": 1}
    for name, seconds in in_turn(sides, rounds=rounds, device=device, progress=progress):
        sizes_of = {"batch_size": batch_sizes.get(name, 128), "hidden": 1 if name == "smallest network" else 128}
        yield Timed("account", name, device.type, 1, [s / steps for s in seconds], sizes_of)


def between(batches: Iterable, call: Callable[[], object]) -> None:
    """A pass over `batches`, with a `call` after each of them."""
    for _ in batches:
        call()


def ensemble(
    device: torch.device, *, counts=(1, 2, 4, 8, 16, 32), steps=20, rounds=10, progress: Callable = iter
) -> Iterator[Timed]:
    """Many networks trained at once on the same batches (mnist_gpu.ensemble), against one by the plain step."""
    set_threads(1)
    batch = next(iter(make_batches("device", device=device)))
    model = make_model(device=device)
    calls = {0: make_step(model, sgd(model))}  # the plain step
    for n in counts:
        calls[n] = make_ensemble_step([make_model(seed=i, device=device) for i in range(n)])
    sides = {n: lambda step=step: repeat(lambda: step(*batch), steps) for n, step in calls.items()}
    for n, seconds in in_turn(sides, rounds=rounds, device=device, progress=progress):
        name = "at once" if n else "plain step"
        work = {"images": 128 * steps * max(1, n), "steps": steps, "networks": max(1, n)}
        yield Timed("ensemble", name, device.type, 1, seconds, {"networks": max(1, n)}, work)


class First:
    """The first `n` batches of a pass: `for batch in First(batches, 100)`. None takes them all."""

    def __init__(self, batches: Iterable, n: int | None):
        self.batches, self.n = batches, n

    def __iter__(self):
        return itertools.islice(iter(self.batches), self.n)


def train_part(training: Training, steps: int | None = None) -> Epoch:
    """One pass over its batches, or the first `steps` of them, with no log lines printed."""
    model, step, batches = training
    if steps and isinstance(batches, EpochGraph):
        batches.steps = steps  # or each call would train on the whole epoch
    return train(model, step, First(batches, steps), log=lambda *_: None)[0]


PEER_TOLERANCE = 0.15  # of the plain loop's test loss after one epoch; other orders of the images change it by a tenth


def peers(*, names: Iterable[str] | None = None, rounds=10, progress: Callable = iter) -> Iterator[Timed | Skipped]:
    """Other libraries on the same training (mnist_gpu.peers): one CPU, a process each, an epoch each in turn."""
    names = list(names or PEERS)
    running, first, proofs = {}, {}, {}
    try:
        for name in progress(names):
            running[name] = Peer(name)
            try:
                answer = running[name]()
                first[name] = answer.pop("seconds")
                proofs[name] = answer | {"lines_of_code": lines_of_code(name)}
                if names[0] not in proofs:
                    raise RuntimeError(f"there is nothing to compare with, since {names[0]} failed")
                expected, found = proofs[names[0]]["test_loss"], answer["test_loss"]
                if not abs(found / expected - 1) <= PEER_TOLERANCE:
                    raise RuntimeError(f"another training: its test loss is {found:.3f}, not about {expected:.3f}")
            except RuntimeError as error:
                running.pop(name).close()
                yield Skipped("peers", name, "cpu", f"failed: {error}")
        sizes = {"batch_size": 128, "hidden": 128}
        for name, seconds in in_turn(running, rounds=rounds, warmup=0, progress=progress):
            work = {"images": TRAIN_IMAGES}
            yield Timed("peers", name, "cpu", 1, seconds, sizes, work, first[name], proofs[name])
    finally:
        for peer in running.values():
            peer.close()


def import_seconds(repeats: int = 5) -> list[float]:
    """What `import mnist_gpu.training` takes beyond `import torch`, in fresh processes, in seconds."""
    code = "import time, torch; t = time.perf_counter(); import mnist_gpu.training; print(time.perf_counter() - t)"
    run = lambda: subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: E731
    return [float(run().stdout) for _ in range(repeats)]


SECTIONS = ("ceilings", "pipelines", "account", "crossover", "ladder", "ensemble")  # and, where installed, "peers"


def benchmark(
    device: torch.device, *, quick=False, only: Iterable[str] = SECTIONS, progress: Callable = iter, say=print
) -> Results:
    """Runs the sections on the CPU, and on `device` if that is another.

    An interrupt ends it, an error ends a section; what was measured before is kept.
    """
    found = Results(environment(device), [], datetime.date.today().isoformat(), quick)
    short = {"seconds": 0.02} if quick else {}
    rounds = {"rounds": 4 if quick else 10, "progress": progress}
    before = torch.get_num_threads()
    try:
        for on in dict.fromkeys([torch.device("cpu"), device]):
            sections = {
                "ceilings": lambda on=on: ceilings(on, **short),
                "pipelines": lambda on=on: pipelines(on, batches=50 if quick else 100, **rounds),
                "account": lambda on=on: account(on, **rounds),
                "crossover": lambda on=on: crossover(on, **rounds),
                "ladder": lambda on=on: itertools.chain(
                    ladder(on, steps=50 if quick else None, **rounds),
                    ladder(on, names=WIDE, hidden=2048, steps=50, **rounds),
                ),
                "ensemble": lambda on=on: ensemble(on, **rounds),
                "peers": lambda on=on: peers(**rounds),
            }
            for name in only:
                if (name == "crossover" and on != device) or (name == "peers" and on.type != "cpu"):
                    continue  # these are run once: one takes all devices in turn, the other the CPU alone
                start = time.perf_counter()
                say(f"{name} on {found.hardware(on.type)} ({on.type}) ...")
                try:
                    for one in sections[name]():
                        (found.skipped if isinstance(one, Skipped) else found.measurements).append(one)
                    synchronize(on)
                except Exception as error:  # the other sections' results are worth more than a traceback
                    reason = f"{type(error).__name__}: {error}"
                    found.skipped.append(Skipped(name, BROKEN_OFF, on.type, reason))
                    say(f"{name} on {on.type} broken off: {reason}")
                else:
                    say(f"{name} on {on.type}: {time.perf_counter() - start:.0f} s")
    except KeyboardInterrupt:
        say("interrupted; keeping what is finished")
    finally:
        set_threads(before)
    return found


BROKEN_OFF = "the rest of the section"


def summary(results: Results) -> str:
    """The ratios that the course rests on, each from one run, and what was skipped."""
    lines = []
    for device in dict.fromkeys(m.device for m in results.measurements):
        where = f"{results.hardware(device)} ({device})"
        for m in sorted(results.select("ceilings", "matrix product", device=device), key=lambda m: m.rate("flop"))[-1:]:
            lines.append(f"{where}: matrix products up to {m.rate('flop') / 1e9:,.0f} GFLOP/s ({m.threads} threads)")
        copies = results.select("ceilings", "copy", device=device)
        largest = max((m.parameters["mebibytes"] for m in copies), default=0)  # beyond the caches
        for m in sorted(copies, key=lambda m: (m.parameters["mebibytes"] == largest, m.rate("bytes")))[-1:]:
            lines.append(f"{where}: copies of {largest} MiB at {m.rate('bytes') / 1e9:,.0f} GB/s ({m.threads} threads)")
        for section, hidden in (("pipelines", None), ("ladder", 128), ("ladder", 2048), ("peers", 128)):
            found = results.select(section, device=device, **({"hidden": hidden} if hidden else {}))
            times = {m.name: m.seconds for m in found}
            head = f"{where}, {section}" + (f", width {hidden}" if hidden == 2048 else "")
            lines += [f"{head}: {compare(times, *pair)}" for pair in pairs_of(section, hidden, times)]
    lines += [f"skipped: {s.section}, {s.name} ({s.device}): {s.reason}" for s in results.skipped]
    lines.append(
        f"import mnist_gpu.training beyond torch: {statistics.median(import_seconds()) * 1000:.1f} ms (median)"
    )
    return "\n".join(lines)


def pairs_of(section: str, hidden: int | None, names: Iterable[str]) -> list[tuple[str, str]]:
    """Which measurements of a section to compare: with what they change, with the textbook, with the floor."""
    names = list(names)
    if section == "pipelines":
        pairs = [(name.removesuffix(", pinned") if "pinned" in name else "dataloader", name) for name in names]
    elif section == "peers":
        pairs = [(OURS[0], name) for name in names] + [(name, OURS[1]) for name in names if name.startswith("JAX")]
    else:
        pairs = [(WIDE[0] if hidden == 2048 else TEXTBOOK, name) for name in names]
        pairs += [(PLAIN, FLOOR), ("backward written out", FLOOR), ("written out, oneDNN", FLOOR_ONEDNN)]
    return [(a, b) for a, b in dict.fromkeys(pairs) if a != b and a in names and b in names]
