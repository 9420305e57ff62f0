"""Tables of results, printed in columns of text."""

import statistics
from collections.abc import Mapping, Sequence

from torch.profiler import profile

from mnist_gpu.faster.ladder import RUNGS, TEXTBOOK
from mnist_gpu.measuring.card import Operation, card_numbers, predict_graph, predict_step, predictable, predicted_map
from mnist_gpu.measuring.chips import WARP, Chip
from mnist_gpu.measuring.lanes import WITH, WITHOUT, Lanes
from mnist_gpu.measuring.multiprocessor import littles_law
from mnist_gpu.measuring.plots import OTHERS, number, span
from mnist_gpu.measuring.prediction import ThreeNumbers
from mnist_gpu.measuring.profiling import operators
from mnist_gpu.measuring.published import MEASURED, SHEET, Figure, Source, published
from mnist_gpu.measuring.regimes import binding, parts, relieving
from mnist_gpu.measuring.results import Results, Skipped, Timed, compare_in_turn
from mnist_gpu.measuring.scaling import Scaling
from mnist_gpu.measuring.timing import compare_all, interval, rounded
from mnist_gpu.measuring.written_predictions import Outcome
from mnist_gpu.mnist import TRAIN_IMAGES


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows of text under a head, printed in columns: the first to the left, the others to the right."""
    widths = [max(len(str(row[i])) for row in (head, *rows)) for i in range(len(head))]
    for first, *others in (head, ["-" * w for w in widths], *rows):
        print("  ".join([f"{first!s:<{widths[0]}}", *(f"{c!s:>{w}}" for c, w in zip(others, widths[1:], strict=True))]))


def known(values: Sequence[float]) -> tuple[str, str]:
    """The median of times, and the interval of the true one, with the digits that this leaves them."""
    value, low, high = rounded(statistics.median(values), *interval(values))
    return value, f"{low} to {high}"


def extra(timed: Timed) -> str:
    """What the first use cost beyond a later one, if that is worth saying."""
    seconds = (timed.first_use_seconds or 0.0) - timed.median
    return f"{seconds:.1f} s" if seconds > 0.3 else "-"


def ladder(measured: Sequence[Timed]) -> None:
    """The rungs of one device in their order: seconds per epoch, against the textbook, first use, losses."""
    found = {m.name: m for m in measured}
    names = [rung.name for rung in RUNGS if rung.name in found]
    pairs = [(TEXTBOOK, name) for name in names if name != TEXTBOOK]
    gains = {c.names[1]: f"{c.times}x" for c in compare_in_turn(found.values(), pairs) if c.differs}
    columns(
        ["rung", "s per epoch", "interval", "speed-up", "first use", "losses"],
        [
            (n, *known(found[n].per_epoch()), gains.get(n, "-"), extra(found[n]),
             f"{found[n].proof['largest_loss_difference']:.0e}")
            for n in names
        ],
    )  # fmt: skip
    print("interval: of the true median. speed-up: over the textbook ('-': no difference shown).")
    print("losses: largest difference from the plain loop's, in nats.")
    print("first use: what it costs once, beyond a later use ('-': next to nothing).")


def skipped(measured: Sequence[Timed | Skipped]) -> list[Timed]:
    """Says what could not be measured, and why; returns what was."""
    for one in measured:
        if isinstance(one, Skipped):
            print(f"{one.name}: {one.reason}.")
    return [one for one in measured if isinstance(one, Timed)]


def ensemble(measured: Sequence[Timed]) -> None:
    """Networks trained at once against one, by the time for each network."""
    label = {f"{m.name}, {m.parameters['networks']}": m for m in measured}
    one, *several = label
    each = {name: [s / m.parameters["networks"] for s in m.seconds] for name, m in label.items()}
    found = compare_all(each, [(one, name) for name in several])
    columns(
        ["networks", "images/s", "networks per second (an epoch each)", "against one"],
        [
            (name, f"{m.rate('images'):,.0f}", number(m.rate("images") / TRAIN_IMAGES), f"{gain}x")
            for (name, m), gain in zip(label.items(), ["1", *(c.times for c in found)], strict=True)
        ],
    )
    best = max(found, key=lambda c: c.ratio)
    print(f"At best, by the time for each network: {best}")


def peers(results: Results) -> None:
    """Other libraries on one recorded machine, the fastest first, and which of them differ from the plain loop."""
    measured = sorted(results.select("peers"), key=lambda m: m.median)
    columns(
        ["training", "s per epoch", "interval", "first use", "test loss", "lines"],
        [
            (m.name if "rung" not in m.proof else f"{m.name}: {m.proof['rung']}", *known(m.seconds), extra(m),
             f"{m.proof['test_loss']:.3f}", m.proof["lines_of_code"])
            for m in measured
        ],
    )  # fmt: skip
    skipped([s for s in results.skipped if s.section == "peers"])
    names = [m.name for m in measured if m.name != "plain loop"]
    found = compare_in_turn(measured, [("plain loop", name) for name in names])
    for verdict, sign in (("Slower", -1), ("Faster", 1)):
        apart = [c.names[1] for c in found if c.differs and sign * (c.ratio - 1) > 0]
        print(f"{verdict} than the plain loop: {'; '.join(apart) or 'none'}.")


def sources(figures: Sequence[Figure], chips: Sequence[Chip] = ()) -> None:
    """Where published figures, and facts of chips, were read: of which cards, title, address, date."""
    found: dict[Source, dict[str, None]] = {}
    for name, source in [(f.card, f.source) for f in figures] + [
        (c.name, f.source) for c in chips for f in c.facts.values()
    ]:
        found.setdefault(source, {})[name] = None
    for source, cards in found.items():
        print(f"{', '.join(cards)}: {source.title}, {source.date}\n    {source.url}")


def published_ceilings(cards: Sequence[str], operations: float, moved: float) -> list[Figure]:
    """What `operations` (FLOP, in float32) and `moved` (bytes) would take at the published rates of `cards`, in µs.

    From a card's data sheet and, where others measured both rates, from theirs. Returns the figures that were used.
    """
    rows, used = [], []
    for card in cards:
        for kind, memory in ((SHEET, "memory"), (MEASURED, "copy")):
            found = [published(card=card, quantity=quantity, kind=kind)[:1] for quantity in ("float32", memory)]
            if all(found):
                (rate,), (bandwidth,) = found
                times = operations / rate.value, moved / bandwidth.value
                rows.append((f"{OTHERS}: {card}", kind, *(f"{1e6 * t:.1f}" for t in times)))
                used += [rate, bandwidth]
    columns(["card", "kind of figure", "arithmetic, µs", "memory, µs"], rows)
    return used


def predicted_steps(cards: Sequence[str], launch: float, cpu_seconds: float, batch_size: int, hidden: int) -> None:
    """A training step on `cards`, predicted, and how many times as fast as a CPU's that takes `cpu_seconds`.

    `launch`: seconds that this computer takes to ask for a step's operations.
    """
    rows, steps = [], []
    for name in cards:
        card = card_numbers(name)
        found = predict_step(card, launch, batch_size, hidden), predict_graph(card, batch_size, hidden)
        rows.append((name, *(text for t in found for text in (span(t, 1e-6), f"{span(t.gain_over(cpu_seconds))}x"))))
        steps.append(found[0])
    columns(["predicted", "launched, µs", "against this CPU", "as a CUDA graph, µs", "against this CPU"], rows)
    print("At least to at most. launched: the host asks for the operations one by one; in a graph it does not.")
    print(f"against this CPU: how many times as fast as its {1e6 * cpu_seconds:,.0f} µs.")
    if len(steps) > 1:
        alike = max(s.low for s in steps) <= min(s.high for s in steps)
        print("Launched one by one, " + ("all may take as long: their ranges overlap." if alike else "they differ."))


def predicted_maps(launch: float, measured: Sequence[Sequence[Timed]]) -> None:
    """For every card there is a prediction for: in how many of the `measured` steps of a CPU it would be faster."""
    rows = []
    for name in predictable():
        cells = [c for row in predicted_map(card_numbers(name), launch, measured) for c in row]
        surely, never = sum(c.low > 1 for c in cells), sum(c.high < 1 for c in cells)
        best = max(cells, key=lambda c: c.middle)
        rows.append((name, surely, len(cells) - surely - never, never, f"{span(best)}x"))
    columns(["predicted", "surely faster", "open", "surely slower", "the most that it gains"], rows)


def outcomes(found: Sequence[Outcome]) -> None:
    """Predictions beside what was measured later, and whether it lies in the range."""
    rows = []
    for o in found:
        card, section, name, parameters, seconds = o.predicted
        sizes = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in parameters.items())
        per, unit = (1, "s") if section == "ladder" else (1e-6, "µs")
        rows.append(
            (f"{card}: {name}, {sizes}", f"{span(seconds, per)} {unit}", number(o.measured / per),
             f"{o.factor:.2f}x", "yes" if o.right else "NO")
        )  # fmt: skip
    columns(["what", "predicted", "measured", "of the middle", "in the range"], rows)
    print(f"{sum(o.right for o in found)} of {len(found)} measured times lie in the predicted range.")


def profiled_operators(watched: profile, count: int, *, rows: int = 12) -> None:
    """The operators of `count` steps that took longest by themselves, per step."""
    found = operators(watched)
    total = sum(e.self_cpu_time_total for e in found)
    columns(
        ["operator", "calls per step", "self, CPU µs per step", "share", "self, GPU µs per step"],
        [
            (e.key[:44], e.count // count, f"{e.self_cpu_time_total / count:.1f}",
             f"{e.self_cpu_time_total / total:.0%}", f"{e.self_device_time_total / count:.1f}")
            for e in found[:rows]
        ],
    )  # fmt: skip
    print(f"{len(found)} different operators, {sum(e.count for e in found) // count} calls per step")


def widths(measured: Scaling, predicted: Mapping[int, float]) -> None:
    """A step of one process against one of all, by width, beside what was `predicted` for all, in seconds."""
    pairs = {f"{who} {width}": times[who] for width, times in measured.steps.items() for who in ("one", "strong")}
    found = compare_all(pairs, [(f"one {width}", f"strong {width}") for width in measured.steps])
    rows = []
    for (width, times), gain in zip(measured.steps.items(), found, strict=True):
        one, strong = (1e3 * statistics.median(times[who]) for who in ("one", "strong"))
        guess = 1e3 * predicted[width]
        rows.append((width, number(one), number(guess), number(strong), f"{one / guess:.2f}x", f"{gain.times}x"))
    n = measured.processes
    columns(["width", "1 process, ms", f"{n} predicted", f"{n} measured", "gain predicted", "gain measured"], rows)
    best, at = max(zip(found, measured.steps, strict=True), key=lambda c: c[0].ratio)
    print(f"{n} processes {'gain most' if best.ratio > 1 else 'lose least'} at width {at}: {best.times} times as fast.")
    pays = best.differs and best.ratio > 1
    print("That pays." if pays else "Within these widths it does not pay on this machine.")


def binary(size: float) -> str:
    """ "164 KiB", "40 MiB"."""
    return f"{size / 2**10:,.0f} KiB" if size < 2**20 else f"{size / 2**20:,.0f} MiB"


def chips(found: Sequence[Chip]) -> None:
    """What is inside published cards, and the check that every reader can do: lanes x 2 x clock is the sheet's peak."""

    def cell(value: float | None, text=lambda v: f"{v:,.0f}") -> str:
        return "-" if value is None else text(value)

    rows = [
        ("multiprocessors", *(cell(c.get("multiprocessors")) for c in found)),
        ("lanes of each", *(cell(c.get("multiprocessors"), lambda n, c=c: f"{c.get('lanes') / n:.0f}") for c in found)),
        ("warps resident in each", *(cell(c.get("warps")) for c in found)),
        ("blocks resident in each", *(cell(c.get("blocks")) for c in found)),
        ("threads resident in all", *(f"{c.get('warps') * WARP * c.get('multiprocessors'):,.0f}" for c in found)),
        ("clock, GHz", *(cell(c.get("clock"), lambda v: f"{v / 1e9:.2f}") for c in found)),
        ("lanes x 2 x clock, TFLOP/s", *(cell(c.peak, lambda v: f"{v / 1e12:.1f}") for c in found)),
        ("data sheet, TFLOP/s", *(f"{c.sheet_peak / 1e12:.1f}" for c in found)),
    ]
    columns([OTHERS, *(c.name for c in found)], rows)
    off = [abs(c.peak / c.sheet_peak - 1) for c in found if c.peak]
    print(f"Lanes x 2 x clock is the data sheet's float32 peak to within {max(off):.1%}. '-': not published here.")


def memories(found: Sequence[Chip]) -> None:
    """The memories of published cards: size, cycles from asking to having, and rate of all multiprocessors together."""
    rows = []
    for c in found:
        count = c.get("multiprocessors")
        bus = published(card=c.name, quantity="pinned transfer")[:1]
        shown = [
            ("registers", c.get("registers"), count, None, None),
            (
                "shared memory",
                c.get("shared memory"),
                count,
                c.get("shared memory cycles"),
                c.get("shared memory rate"),
            ),
            ("L2", c.get("L2"), 1, c.get("L2 cycles"), c.get("L2 rate")),
            ("the card's memory", None, 1, c.get("memory cycles"), c.bandwidth),
            ("the bus", None, 1, None, bus[0].value if bus else None),
        ]
        for level, size, times, cycles, rate in shown:
            each = "-" if size is None else (f"{times:.0f} x " if times > 1 else "") + binary(size)
            speed = "-" if rate is None else f"{rate / 1e9:,.0f}"
            rows.append((f"{OTHERS}: {c.name}, {level}", each, "-" if cycles is None else f"{cycles:.0f}", speed))
    columns(["memory", "size", "cycles", "GB/s"], rows)
    print("cycles: from asking to having, rounded. '-': not published here.")


def in_flight(found: Sequence[Chip], operations: Sequence[Operation]) -> None:
    """Little's law for published cards, beside the bytes that the operations of a training step move."""
    rows = []
    for c in found:
        if c.latency:
            needed = littles_law(c.bandwidth, c.latency)
            each = needed / c.get("multiprocessors")
            enough = sum(o.bytes >= needed for o in operations)
            rows.append((c.name, f"{1e9 * c.latency:.0f}", f"{c.bandwidth / 1e9:,.0f}", f"{needed / 1e3:,.0f}",
                         f"{each / 1e3:.1f}", f"{enough} of {len(operations)}"))  # fmt: skip
    head = [OTHERS, "latency, ns", "GB/s", "in flight, KB", "of a multiprocessor", "operations that move as much"]
    columns(head, rows)
    if without := [c.name for c in found if not c.latency]:
        print(f"No latency is published here of: {', '.join(without)}.")


def regimes(devices: Mapping[str, ThreeNumbers], steps: Sequence[tuple[int, int]]) -> None:
    """What binds on these devices, by the label that a figure has for them, in `steps` (images, width); and what helps.

    The first of them is here, and launches for the others, which are published cards.
    """
    rows = [(label, *(binding(parts(numbers, *s)) for s in steps)) for label, numbers in devices.items()]
    columns(["what binds", *(f"{images} x {width}" for images, width in steps)], rows)
    launch = next(iter(devices.values())).launch
    print(
        f"Columns: images x width. Cards: their data sheets, launched by this computer in {1e6 * launch:.0f} µs a step."
    )
    together = {}
    for label, numbers in devices.items():
        kind = "cpu" if label.endswith("CPU") else "cuda"
        together.setdefault((binding(parts(numbers)), kind), []).append(label)
    for (first, kind), labels in together.items():
        print(f"{'; '.join(labels)}: 128 images at width 128 wait for {first}.")
        print(f"Rungs that relieve them most: {'; '.join(relieving(first, kind))}.")


def ridges(cards: Sequence[str]) -> list[Figure]:
    """From which size of a product on operations bind instead of bytes, by card and precision. Returns the figures."""
    found, rows = [], []
    for card in cards:
        (memory,) = published(card=card, quantity="memory", kind=SHEET)
        found.append(memory)
        for precision, size in (("float32", 4), ("TF32", 4), ("bfloat16", 2), ("float16", 2)):
            for figure in published(card=card, quantity=precision, kind=SHEET):
                ridge = figure.value / memory.value
                least = 1.5 * size * ridge  # n, from 2 n^3 / (3 n^2 size) = ridge
                rate = f"{figure.value / 1e12:,.1f}"
                rows.append((f"{OTHERS}: {card}", precision, rate, f"{ridge:,.0f}", f"{least:,.0f}"))
                found.append(figure)
    columns(["card", "precision", "TFLOP/s", "ridge, FLOP/byte", "n, at least"], rows)
    return found


def lanes(found: Lanes) -> None:
    """Operations with and without wide vectors: seconds, and how many times as fast, where a difference is shown."""
    pairs = {f"{name} {side}": times for name, sides in found.seconds.items() for side, times in sides.items()}
    each = compare_all(pairs, [(f"{name} {WITHOUT}", f"{name} {WITH}") for name in found.seconds])
    rows = [
        (name, *(f"{1e6 * statistics.median(sides[side]):.1f}" for side in (WITH, WITHOUT)),
         f"{c.times}x" if c.differs else "no difference shown")
        for (name, sides), c in zip(found.seconds.items(), each, strict=True)
    ]  # fmt: skip
    columns(["µs", *(f"{side} ({found.capability[side]})" for side in (WITH, WITHOUT)), "times as fast"], rows)
    obey = [name for name, c in zip(found.seconds, each, strict=True) if c.differs and c.ratio > 1.1]
    rest = [name for name in found.seconds if name not in obey]
    print(
        f"The setting changes: {', '.join(obey) or 'none of them'}. It leaves as they are: {', '.join(rest) or 'none'}."
    )
    if len(set(found.capability.values())) == 1:
        print("PyTorch has no wider variant for this processor, so both processes ran the same code.")
