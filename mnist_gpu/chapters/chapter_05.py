"""Chapter 05, CPU versus GPU: the sides, the map of a step's times, predictions for other cards, and the exercises."""

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from types import SimpleNamespace

import torch

from mnist_gpu.data import DeviceBatches
from mnist_gpu.device import device_name, synchronize
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.faster.webgpu_epoch import WebGPUEpoch
from mnist_gpu.measuring.busy import watching
from mnist_gpu.measuring.drawing import Drawn, grid, span
from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, checker, compared, in_time
from mnist_gpu.measuring.operations import step_bytes, step_flops
from mnist_gpu.measuring.results import Timed, side_name
from mnist_gpu.measuring.timing import alternate
from mnist_gpu.measuring.workloads import repeat, seconds_of, thread_counts, training_step, webgpu_call
from mnist_gpu.model import make_model
from mnist_gpu.webgpu.gpu import the_gpu, webgpu_missing

CPU, WEBGPU = torch.device("cpu"), SimpleNamespace(type="webgpu")  # which is no device of PyTorch's


def own_gpu(device: torch.device) -> SimpleNamespace | None:
    """The reader's GPU, PyTorch's or WebGPU's: `submit(n)` asks for a product of n x n numbers; `wait()`; `name`."""
    if device.type != "cpu":
        own = {"name": device_name(device), "wait": partial(synchronize, device)}
        return SimpleNamespace(**own, submit=lambda n: torch.mm(*torch.ones(2, n, n, device=device)))
    if webgpu_missing():
        return None
    gpu, call = the_gpu(), cache(partial(webgpu_call, the_gpu()))  # the first of a size allocates its memory
    return SimpleNamespace(name=gpu.name, wait=gpu.wait, submit=lambda n: gpu.submit([call(n)]))


def sides_of(device: torch.device) -> dict[str, tuple]:
    """What to compare, (device, threads) by name: the CPU with one and all usable threads, then the GPUs there are."""
    found = [(on, threads) for on in dict.fromkeys([CPU, device]) for threads in thread_counts(on)]
    found += [(WEBGPU, 1)] * (not webgpu_missing() and the_gpu().adapter.kind != "software")
    return {side_name(on.type, threads): (on, threads) for on, threads in found}


def two_of(sides: dict[str, tuple]) -> tuple[str, str]:
    """The CPU with all its threads and a GPU; where there is none, the CPU with one thread and with all."""
    cpus, gpus = ([name for name, (on, _) in sides.items() if (on == CPU) is is_cpu] for is_cpu in (True, False))
    return (cpus[-1], gpus[0]) if gpus else (cpus[0], cpus[-1])


def counted_step(on: torch.device, threads: int, batch_size: int, hidden: int) -> tuple[Callable[[int], None], list]:
    """A function that makes so many steps with one batch that is on the device, and the arrays that it has there."""
    if on is not WEBGPU:
        return partial(repeat, training_step(on, batch_size, hidden), threads=threads), []
    images, model = torch.randint(256, (batch_size, 28, 28), dtype=torch.uint8), make_model(hidden)
    batch = DeviceBatches(images, torch.randint(10, (batch_size,)), batch_size)
    list(epoch := WebGPUEpoch(the_gpu(), model, sgd(model), batch))  # a first step, after which all is there
    calls = epoch.calls(0, 0, batch_size)
    return lambda count: epoch.gpu.run(calls * count), [*epoch.arrays.values()]


def measure_crossover(
    device: torch.device, *, batch_sizes=(32, 128, 512, 2048), widths=(32, 128, 512, 2048), rounds=10,
    call_seconds=0.02, progress: Callable = iter,
) -> Iterator[Timed]:  # fmt: skip
    """Time of a step over batch size x hidden width, data on the device, all sides in turn, `call_seconds` a call."""
    with watching():
        for batch_size, hidden in progress([(b, w) for b in batch_sizes for w in widths]):
            calls, counts, held = {}, {}, []
            for on, threads in sides_of(device).values():
                steps, arrays = counted_step(on, threads, batch_size, hidden)
                side, held = (on.type, threads), held + arrays
                counts[side] = math.ceil(call_seconds / seconds_of(partial(steps, 1), CPU if on is WEBGPU else on))
                calls[side] = partial(steps, counts[side])
            sizes, flop = {"batch_size": batch_size, "hidden": hidden}, sum(step_flops(batch_size, hidden))
            work = {"flop": flop, "bytes": step_bytes(batch_size, hidden), "images": batch_size}
            for side, seconds in alternate(calls, rounds=rounds, device=device).items():
                proof = {"hardware": the_gpu().name} if side[0] == WEBGPU.type else {}
                yield Timed("crossover", "step", *side, [s / counts[side] for s in seconds], sizes, work, proof=proof)
            for array in held:
                array.release()


def ratio_map(ratios: Sequence, steps: Sequence[Timed], title: str, model: Sequence[float] = ()) -> Drawn:
    """How many times as fast, compared or predicted, and what a `model` says; in brackets where that may be 1."""
    found = [
        (r.ratio, r.times, r.differs) if hasattr(r, "times") else (r.middle, span(r), not r.low <= 1 <= r.high)
        for r in ratios
    ]
    rows, widths = (list(dict.fromkeys(m.parameters[name] for m in steps)) for name in ("batch_size", "hidden"))
    wins = torch.tensor([ratio if claimed else 1.0 for ratio, _, claimed in found]).log2().view(len(rows), -1)
    texts = [text if claimed else f"({text})" for _, text, claimed in found]
    texts = [f"{text}\nmodel {one:.2g}" for text, one in zip(texts, model, strict=True)] if model else texts
    axes, largest = grid(
        wins, [texts[i : i + len(widths)] for i in range(0, len(texts), len(widths))], rows=("batch size", rows),
        columns=("hidden width", widths), signed=True, title=title, label="times as fast",
    )  # fmt: skip
    axes.images[0].colorbar.ax.yaxis.set_major_formatter(lambda log2, _: f"{2**log2:.2g}")
    axes.figure.set_size_inches(7, 3.2)
    faster, slower, open_ = (int(found.sum()) for found in (wins > 0, wins < 0, wins == 0))
    counts = f"of {wins.numel()} cells faster in {faster}, slower in {slower}, open in {open_} (brackets)"
    return Drawn(axes, f"{title}: {counts}.\n{largest.replace(chr(10), ', ')}")


def agreed(a: list[float], b: list[float], left_out: int = 1) -> str:
    """What an interval claims that leaves out so many of the ratios at each end: one, of ten."""
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))[left_out : len(a) - left_out]
    return "b" if ratios[0] > 1 else "a" if ratios[-1] < 1 else "neither"


def ten_rounds() -> Iterator[list[list[float]]]:
    """Four times each: a clear case, a machine that grows slower, equal sides, one and two disturbed rounds."""
    kinds = ((1.5, 0.05, 0, 0), (1.05, 0.01, 0.3, 0), (1.0, 0.2, 0, 0), (1.1, 0.02, 0, 1), (1.1, 0.02, 0, 2))
    for ratio, noise, slowing, disturbed in 4 * kinds:
        a, b = ([x * (1 + slowing * i) * random.uniform(1, 1 + noise) for i in range(10)] for x in (ratio, 1.0))
        for i in random.sample(range(10), disturbed):
            b[i] *= random.uniform(2, 5)
        yield random.sample([a, b], 2)


class Machine:
    """A device with a clock of its own. It works after a call has returned, and every call takes it a little longer."""

    LAUNCH, SETUP, DRIFT = 0.01, 50.0, 0.02  # seconds, seconds, share of the work by which a call is slower

    def __init__(self, *work: float):
        self.now = self.idle_at = self.calls = 0.0
        self.true = [[] for _ in work]  # what each call takes by itself, from an idle device to an idle one
        self.functions = [partial(self.call, *each) for each in zip(work, self.true, strict=True)]

    def call(self, seconds: float, true: list[float]) -> None:
        self.now += self.LAUNCH + (0.0 if true else self.SETUP)
        seconds *= 1 + self.DRIFT * self.calls
        self.calls += 1
        self.idle_at = max(self.now, self.idle_at) + seconds
        true.append(seconds + self.LAUNCH)

    def wait(self) -> None:
        self.now = max(self.now, self.idle_at)


def times_of(answer: Callable, ratio: float, rounds: int) -> str:
    """What is wrong with the answer's times of two functions on a machine."""
    machine = Machine(ratio, 1.0)
    given = [list(seconds) for seconds in answer(*machine.functions, rounds, lambda: machine.now, machine.wait)]
    if [*map(len, given)] != [rounds, rounds] or not all(machine.true):
        return "it has to be two lists, with the seconds of every round"
    for seconds, (first, *warm) in zip(given, machine.true, strict=True):
        least = min([first, *warm])
        for found in seconds:
            if own := next((one for one in warm if abs(found - one) < 1e-6), None):
                warm.remove(own)  # each is the time of one round
            elif found > Machine.SETUP or abs(found - first) < 1e-6:
                return "there is a first call in it, which sets things up: it belongs outside the clock"
            elif found < least:
                return "these are times of the asking only: a call works on after it has returned"
            else:
                return "other calls are in it, too: was the device still at work on them when the clock started?"
    off = statistics.median(a / b for a, b in zip(*given, strict=True)) / ratio - 1
    later = "one side's times were always taken later, and the machine grows slower"
    return later if abs(off) > 3 * Machine.DRIFT else ""  # which leaves room for a call to warm up before each


EXERCISES = (
    Exercise("05.1", WRITE, "May a claim be made?", compared(
        agreed, ten_rounds,
        given=lambda a, b: f"Ratios a / b: {' '.join(f'{r:.3g}' for r in sorted(map(float.__truediv__, a, b)))}",
        hints=[
            (partial(agreed, left_out=0), "One disturbed round decides nothing: leave out one ratio at each end."),
            (partial(agreed, left_out=2), "The interval leaves out one ratio at each end, not two."),
            (lambda a, b: agreed(b, a), "A ratio a / b below 1 says that a takes less time."),
            (lambda a, b: agreed(sorted(a), sorted(b)[::-1]), "The i-th time of a belongs to the i-th of b: a pair."),
        ],
        why=lambda *_: 'If 1 lies in the interval, it is "neither": two medians always differ, and claim nothing yet.',
    )),
    Exercise("05.2", MEND, "A comparison that favours one side", compared(
        lambda ratio, rounds: "",
        lambda: [(1.0, 10), (1.0, 1), *((random.uniform(0.5, 2), random.randrange(6, 20)) for _ in range(4))],
        given=lambda ratio, rounds: f"{rounds} rounds, a takes {ratio:.2f} times as long as b (what is wrong)",
        run=partial(in_time, times_of),
    )),
)  # fmt: skip
check = checker(EXERCISES)
