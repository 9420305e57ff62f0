"""Figures from plain numbers. Where a figure shows a result, the sentence that says it is printed under it.

Colours are Okabe and Ito's palette, which readers with any colour vision can tell apart; series differ by marker and
line as well. The reader's own machine is filled and solid, what was recorded elsewhere hollow and dashed, what others
have published grey and dotted, with a diamond, and called so; what is predicted is hollow, a range, and called so.
"""

import statistics
from collections.abc import Container, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from mnist_gpu.checks import atomic_write
from mnist_gpu.measuring.card import Range
from mnist_gpu.measuring.prediction import ThreeNumbers
from mnist_gpu.measuring.published import Figure
from mnist_gpu.measuring.results import QUIET, Results, Timed, compare_in_turn
from mnist_gpu.measuring.sections.account import Account
from mnist_gpu.measuring.timing import Comparison, interval, rounded

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^vPXh"
GREYS = ("#222222", "#777777", "#4d4d4d", "#999999")  # of published figures, with the diamond that no other series has
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
OWN, OTHERS = "this machine", "published"
plt.rcParams.update(
    {
        "figure.figsize": (8, 4),
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "savefig.bbox": "tight",
    }
)


def side_name(device: str, threads: int) -> str:
    """ "CPU with 2 threads", or the type of the GPU: "CUDA"."""
    return f"CPU with {threads} thread" + "s" * (threads > 1) if device == "cpu" else device.upper()


def number(value: float) -> str:
    """Three significant digits below a hundred, none after the point above."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def span(found: Range, per: float = 1.0) -> str:
    """ "2.1 to 5.3": a predicted range, its ends with two significant digits, or none after the point."""
    return " to ".join(f"{x / per:.2g}" if x / per < 100 else f"{float(f'{x / per:.2g}'):,.0f}" for x in found)


def digits(images: torch.Tensor, titles: Sequence[str], columns: int = 10, width: float = 0.9) -> None:
    """Images `[N, 28, 28]` in rows of `columns`, each `width` inches wide, a title over each."""
    rows = -(-len(images) // columns)
    axes = plt.subplots(rows, columns, figsize=(columns * width, rows * 1.15), squeeze=False)[1]
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, text in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image.cpu().numpy(), cmap="gray_r")
        axis.set_title(text, fontsize=9)
    plt.show()


def weights(before: torch.Tensor, after: torch.Tensor, count: int = 10) -> None:
    """The first `count` hidden units' weights `[H, 784]` as pictures: blue below zero, red above, one scale for all."""
    limit = float(torch.stack([before[:count], after[:count]]).abs().max())
    figure, axes = plt.subplots(2, count, figsize=(count * 0.9, 2.3))
    for row, (name, tensor) in enumerate((("before", before), ("after", after))):
        for column in range(count):
            axis = axes[row, column]
            picture = axis.imshow(tensor[column].reshape(28, 28).cpu().numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(False)
        axes[row, 0].set_ylabel(name)
    figure.colorbar(picture, ax=axes, label="weight")
    plt.show()


def by_card(figures: Sequence[Figure], per: float) -> dict[str, list[tuple[float, str]]]:
    """Published figures as (value, kind), the largest first, by what the card is called in a legend."""
    cards = dict.fromkeys(f.card for f in figures)
    return {
        f"{OTHERS}: {card}": sorted(((f.value / per, f.kind) for f in figures if f.card == card), reverse=True)
        for card in cards
    }


def said(values: Sequence[tuple[float, str]], unit: str) -> str:
    """ "19,500 GFLOP/s (data sheet), 19,000 (measured by others)"."""
    first, *rest = (f"{number(value)}{{}} ({kind})" for value, kind in values)
    return ", ".join([first.format(f" {unit}"), *(text.format("") for text in rest)])


def rates(
    name: str, x: str, what: str, mine: Results, others: Sequence[Results], *, unit: str, per: float, xlabel: str,
    published: Sequence[Figure] = (),
) -> None:  # fmt: skip
    """Rate over size, of every device and thread count, the reader's beside the recorded ones; logarithmic axes.

    `published` figures, which are of no size, are lines from side to side: a card's highest figure, which is its name's
    place, too, and its lowest.
    """
    axis = plt.subplots()[1]
    best = []
    sources = [(mine, False), *((o, True) for o in others)]
    index = 0
    for results, is_recorded in sources:
        groups = dict.fromkeys((m.device, m.threads) for m in results.select("ceilings", name))
        for device, threads in groups:
            found = results.select("ceilings", name, device=device, threads=threads)
            xs, ys = [m.parameters[x] for m in found], [m.rate(what) / per for m in found]
            ends = [m.rate_interval(what) for m in found]
            label = series(results, found[0], own=not is_recorded)
            color = PALETTE[index % len(PALETTE)]
            style = {"linestyle": "--", "markerfacecolor": "white"} if is_recorded else {}
            axis.plot(xs, ys, marker=MARKERS[index % len(MARKERS)], color=color, label=label, **style)
            axis.fill_between(xs, *([s[i] / per for s in ends] for i in (0, 1)), color=color, alpha=0.15)
            index += 1
            if not is_recorded:
                best.append((label, ys[0], xs[0], max(ys), xs[ys.index(max(ys))], ys[-1], xs[-1]))
    cards = by_card(published, per)
    side = axis.get_yaxis_transform()
    for rank, (card, values) in enumerate(sorted(cards.items(), key=lambda item: item[1])):
        color, highest = GREYS[rank % len(GREYS)], values[0][0]
        for value in {highest, values[-1][0]}:
            axis.axhline(value, color=color, linestyle=":", linewidth=1.2)
        axis.plot([], [], "D:", color=color, label=f"{card}, {said(values, unit)}", markersize=5)
        axis.plot(1, highest, "D", color=color, transform=side, clip_on=False)
        at = 8 + 36 * (rank % 2)  # in points: the names of neighbours do not lie over each other
        short = card.removeprefix(f"{OTHERS}: ")
        axis.annotate(short, (1, highest), (at, -3), xycoords=side, textcoords="offset points", fontsize=8, color=color)
    axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=unit)
    axis.set_xticks(sorted({m.parameters[x] for r, _ in sources for m in r.select("ceilings", name)}))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_minor_locator(LogLocator(subs=[]))
    ys = [m.rate(what) / per for r, _ in sources for m in r.select("ceilings", name)]
    ys += [value for values in cards.values() for value, _ in values]
    # Within one decade a logarithmic locator finds one or two places for a tick.
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if max(ys) > 8 * min(ys) else MaxNLocator(6))
    axis.yaxis.set_major_formatter("{x:,g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.legend(loc="upper left", bbox_to_anchor=(0, -0.2), fontsize=9)
    plt.show()
    for label, first, start, top, at, last, end in best:
        print(f"{label}: {first:,.0f} {unit} at {start:g}, at most {top:,.0f} (at {at:g}), {last:,.0f} at {end:g}.")
    for card, values in cards.items():
        print(f"{card}: {said(values, unit)}.")


def series(results: Results, timed: Timed, own: bool = False) -> str:
    """Whose measurement it is, for a legend: the reader's `own` machine, or a recorded one, when, and how busy."""
    where = f"{results.hardware(timed.device)}, {side_name(timed.device, timed.threads)}"
    load = results.environment.get("load_average") or 0.0
    busy = f", at a load of {load:g}" if load > QUIET else ""
    return f"{OWN}: {where}" if own else f"{where} (recorded {results.date}{busy})"


def bars(
    entries: Sequence[tuple[str, str, Timed]], what: str, *, unit: str, per: float = 1.0, title: str = "",
    published: Sequence[tuple[str, Figure]] = (),
) -> None:  # fmt: skip
    """Median rates of `what` as horizontal bars on a logarithmic axis: entries (row, series, Timed), a group a row.

    The interval that holds the true median is a black line, the value is written beside it. `published` figures (row,
    Figure) are diamonds on dotted lines, with their names.
    """
    rows = list(dict.fromkeys([*(row for row, _, _ in entries), *(row for row, _ in published)]))
    names = sorted(dict.fromkeys(name for _, name, _ in entries), key=lambda name: not name.startswith(OWN))
    height = 0.8 / max(1, len(names))
    legend = 0.25 * (len(names) + len(published))
    axis = plt.subplots(figsize=(8, 1 + len(rows) * max(0.42, 0.28 * len(names)) + legend))[1]
    for i, (row, figure) in enumerate(published):
        card, ((value, kind),) = next(iter(by_card([figure], per).items()))
        axis.plot([value / 1e6, value], [rows.index(row)] * 2, ":", color=GREYS[i % len(GREYS)], linewidth=1.2)
        axis.plot(value, rows.index(row), "D", color=GREYS[i % len(GREYS)], markersize=6,
                  label=f"{card} ({kind}): {number(value)} {unit}")  # fmt: skip
    found = {(row, name): m for row, name, m in entries}
    for i, name in enumerate(names):
        color = PALETTE[i % len(PALETTE)]
        look = {"facecolor": color} if name.startswith(OWN) else {"facecolor": "white", "hatch": HATCHES[i % 5 + 1]}
        mine = {row: found[row, name] for row in rows if (row, name) in found}
        at = [rows.index(row) + (i + 0.5) * height - 0.4 for row in mine]
        values = [m.rate(what) / per for m in mine.values()]
        axis.barh(at, values, height=0.9 * height, edgecolor=color, label=name, **look)
        for y, value, m in zip(at, values, mine.values(), strict=True):
            low, high = (v / per for v in m.rate_interval(what))
            axis.plot([low, high], [y, y], color="black", linewidth=2)
            axis.annotate(number(value), (high, y), (6, -3), textcoords="offset points", fontsize=9)
    every = [m.rate(what) / per for _, _, m in entries] + [f.value / per for _, f in published]
    axis.set_yticks(range(len(rows)), rows)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=f"{unit} (logarithmic)", title=title, xscale="log", xlim=(min(every) / 3, max(every) * 6))
    axis.xaxis.set_major_formatter("{x:,g}" if max(every) < 1e5 else "{x:,.0f}")
    axis.figure.legend(loc="outside lower left", fontsize=9)
    plt.show()
    for name in names:
        ranked = sorted((m.rate(what) / per, row) for row, other, m in entries if other == name)
        (low, slowest), (high, fastest) = ranked[0], ranked[-1]
        print(f"{name}: from {number(low)} {unit} ({slowest}) to {number(high)} ({fastest}).")
    for card, values in by_card([f for _, f in published], per).items():
        print(f"{card}: {said(values, unit)}.")


def stack(parts: Sequence[tuple[str, float]], whole: float, *, unit: str, title: str = "") -> None:
    """Parts of a whole as one stacked bar, the measured whole as a line, each part named beside its share."""
    axis = plt.subplots(figsize=(8, 2.6))[1]
    left = 0.0
    for i, (name, value) in enumerate(parts):
        label = f"{name}: {number(value)} {unit} ({value / whole:.0%})"
        axis.barh(
            0,
            value,
            left=left,
            color=PALETTE[i],
            hatch=HATCHES[i % len(HATCHES)],
            edgecolor="white",
            height=0.5,
            label=label,
        )
        left += value
    axis.axvline(whole, color="black", linestyle="--", label=f"measured as a whole: {number(whole)} {unit}")
    axis.set(xlabel=unit, title=title, yticks=[], ylim=(-0.4, 0.4))
    axis.legend(loc="upper left", bbox_to_anchor=(0, -0.35), fontsize=9, ncols=2)
    plt.show()
    name, value = max(parts, key=lambda p: p[1])
    print(f"The parts sum to {number(left)} {unit}, {left / whole:.0%} of the {number(whole)} measured as a whole.")
    print(f"The largest is {name}, with {value / whole:.0%}.")


def stacks(
    rows: Mapping[str, Mapping[str, float]], *, unit: str, per: float = 1.0, least: float = 0.01,
    predicted: Container[str] = (),
) -> None:  # fmt: skip
    """Bars of the same parts, one row each; parts below the share `least` of every bar are left out, and named.

    Rows that are `predicted` are hollow.
    """
    rows = {row: {name: value / per for name, value in parts.items()} for row, parts in rows.items()}
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    small = [n for n in names if all(abs(p.get(n, 0.0)) < least * sum(p.values()) for p in rows.values())]
    axis = plt.subplots(figsize=(8, 1.4 + 0.5 * len(rows)))[1]
    left = dict.fromkeys(rows, 0.0)
    for i, name in enumerate(n for n in names if n not in small):
        widths = [max(0.0, parts.get(name, 0.0)) for parts in rows.values()]
        drawn = axis.barh(
            list(rows), widths, left=list(left.values()), height=0.6, color=PALETTE[i],
            hatch=HATCHES[i], edgecolor="white", label=name,
        )  # fmt: skip
        for row, bar in zip(rows, drawn, strict=True):
            if row in predicted and bar.get_width():
                bar.set(facecolor="white", edgecolor=PALETTE[i])
        left = {row: at + width for (row, at), width in zip(left.items(), widths, strict=True)}
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=unit)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=9, ncols=4)
    plt.show()
    for row, parts in rows.items():
        shown = ", ".join(f"{name} {number(parts[name])}" for name in names if name in parts and name not in small)
        row = row.replace("\n", " ")
        print(f"{row}: {number(sum(parts.values()))} {unit} = {shown}")
    if small:
        print(f"Too small to draw: {', '.join(small)}.")


def account(found: Account, title: str, *, tolerance: float = 0.15) -> None:
    """The parts of a step as one bar beside its whole, and whether their sum is it, within `tolerance`.

    Where it falls short, and how much of that was found in what loading and computing do to each other.
    """
    stack([(name, 1e6 * s) for name, s in found.parts.items()], 1e6 * found.whole, unit="µs", title=title)
    off = found.sum / found.whole - 1
    verdict = "within" if abs(off) <= tolerance else "NOT within"
    print(f"The sum is off by {off:+.0%}, {verdict} the {tolerance:.0%} we allow.")
    if found.disturbance is not None and off < 0:
        print(f"{number(1e6 * (found.whole - found.sum))} µs are missing. Loading and computing in turn", end=" ")
        print(f"take {number(1e6 * found.disturbance)} µs more than the two by themselves.")


def predicted_accounts(
    own: Account, device: str, card: str, accounts: Mapping[str, Sequence[Mapping[str, float]]], rungs: Sequence[str]
) -> None:
    """This machine's account of a step beside what is predicted for a card on some rungs, at least and at most."""
    parts = {"load": own.parts["load"], "launch": own.parts["launch"]}
    parts["compute"] = sum(seconds for name, seconds in own.parts.items() if name.startswith("compute"))
    predicted = {
        f"predicted: {card},\n{rung}, {end}": found
        for rung in rungs
        for end, found in zip(("at least", "at most"), accounts[rung], strict=True)
    }
    rows = {f"{OWN}, {device.upper()}": parts} | predicted
    stacks(rows, unit="µs per step", per=1e-6, predicted=predicted)


def line_fit(steps: Sequence[Timed], held_out: Timed, fixed: float, slope: float) -> None:
    """A step over batch sizes, and the line fitted to it, once over all of them and once the small ones larger.

    Linear axes: on logarithmic ones a line that does not go through the origin is a curve. `held_out`, the step of a
    batch that is not in the fit, is marked beside what the line predicts for it.
    """
    axes = plt.subplots(1, 2, figsize=(8.6, 3.8))[1]
    sizes = [m.parameters["batch_size"] for m in steps]
    at = held_out.parameters["batch_size"]
    for axis, largest in zip(
        axes, (max(sizes), max([n for n in sizes if n <= 4 * at], default=max(sizes))), strict=True
    ):
        shown = [(n, 1e6 * m.median) for n, m in zip(sizes, steps, strict=True) if n <= largest]
        xs = [largest * i / 100 for i in range(101)]
        axis.plot(xs, [1e6 * (fixed + slope * x) for x in xs], "--", color="black", label="fixed + slope x images")
        axis.plot(*zip(*shown, strict=True), "o", label="measured")
        if at <= largest:
            axis.plot(at, 1e6 * held_out.median, "D", color=PALETTE[1], label="measured, not in the fit")
            axis.plot(at, 1e6 * (fixed + slope * at), "x", color=PALETTE[6], markersize=9, label="predicted for it")
        axis.set(xlabel="images in the batch", ylabel="µs per step", ylim=(0, None))
    axes[1].legend(fontsize=8)
    plt.show()


def _cell(found: Comparison | Range | float) -> tuple[float, str]:
    """(ratio, text) of a cell of `ratio_map`."""
    if isinstance(found, Comparison):
        return found.ratio, found.times if found.differs else f"({found.times})"
    if isinstance(found, Range):
        return found.middle, f"({span(found)})" if 1 in found else span(found)
    return found, f"{found:.2g}"


def ratio_map(
    ratios: Sequence[Sequence[Comparison | Range | float]], batch_sizes: Sequence[int], widths: Sequence[int],
    title: str,
) -> None:  # fmt: skip
    """How many times as fast, over batch size and width: measured, a predicted range, or a number.

    In brackets where nothing can be claimed, as the interval or the range has 1 in it. A range has its middle's colour.
    """
    from matplotlib.colors import TwoSlopeNorm

    cells = [[_cell(c) for c in row] for row in ratios]
    shown = torch.tensor([[ratio for ratio, _ in row] for row in cells], dtype=torch.float64).log2()
    limit = max(1.0, float(shown.abs().max()))  # the colours change side at a ratio of 1
    norm = TwoSlopeNorm(0, -limit, limit)
    figure, axis = plt.subplots(figsize=(1.6 + 1.15 * len(widths), 1.1 + 0.62 * len(batch_sizes)))
    picture = axis.imshow(shown.numpy(), cmap="PuOr_r", norm=norm, aspect="auto")
    for i, row in enumerate(cells):
        for j, (_, text) in enumerate(row):
            r, g, b, _ = picture.cmap(norm(float(shown[i, j])))
            dark = 0.299 * r + 0.587 * g + 0.114 * b < 0.5
            axis.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize=10)
    axis.set_xticks(range(len(widths)), widths)
    axis.set_yticks(range(len(batch_sizes)), batch_sizes)
    axis.grid(False)
    axis.set(xlabel="hidden width", ylabel="batch size", title=title)
    ticks = [t for t in range(-10, 11) if abs(t) <= limit]
    figure.colorbar(picture, ax=axis, label="times as fast").set_ticks(ticks, labels=[f"{2.0**t:g}" for t in ticks])
    plt.show()


def confusion(matrix: torch.Tensor) -> None:
    """Counts `[10, 10]`, row: true digit, column: predicted digit; the right answers on the diagonal are left pale."""
    figure, axis = plt.subplots(figsize=(5.6, 5))
    wrong = matrix.clone().fill_diagonal_(0)
    picture = axis.imshow(wrong.numpy(), cmap="Blues")
    for i in range(10):
        for j in range(10):
            color = "white" if wrong[i, j] > wrong.max() * 0.6 else "black"
            axis.text(j, i, int(matrix[i, j]), ha="center", va="center", fontsize=8, color=color)
    axis.set_xticks(range(10))
    axis.set_yticks(range(10))
    axis.grid(False)
    axis.set(xlabel="predicted digit", ylabel="true digit", title="Test images by true and predicted digit")
    figure.colorbar(picture, ax=axis, label="wrong answers", shrink=0.8)
    plt.show()
    true, predicted = divmod(int(wrong.argmax()), 10)
    print(f"The commonest mistake: {int(wrong.max())} times a {true} was taken for a {predicted}.")


class Curves:
    """Training loss and test accuracy, redrawn as training goes on: `update(history, tests)` after an epoch."""

    def __init__(self):
        self.figure, (self.left, self.right) = plt.subplots(1, 2, figsize=(9, 3.2))
        plt.close(self.figure)  # shown through its display handle alone
        self.handle = None

    def update(self, history, tests) -> None:
        """history: list of Epoch; tests: list of Evaluation, one per epoch."""
        self.left.clear()
        self.right.clear()
        for e in history:
            xs = [e.number - 1 + (i + 1) / len(e.losses) for i in range(len(e.losses))]
            self.left.plot(xs, e.losses, color=PALETTE[5], linewidth=0.6, label="a batch" if e.number == 1 else None)
        numbers = [e.number for e in history]
        self.left.plot(numbers, [t.loss for t in tests], color=PALETTE[1], marker="s", label="test set")
        self.left.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
        self.left.legend()
        self.right.plot(numbers, [100 * t.accuracy for t in tests], color=PALETTE[0], marker="o")
        self.right.set(xlabel="epoch", ylabel="test accuracy (%)", xticks=numbers)
        if self.handle is None:
            from IPython.display import display

            self.handle = display(self.figure, display_id=True)
        else:
            self.handle.update(self.figure)


def ladder_sources(machines: Sequence[Results], own: Results | None = None) -> list[tuple[str, list[Timed]]]:
    """(label, measurements) of every device whose ladder was measured at width 128, the reader's `own` machine first.

    A CPU is drawn with one thread; with all of them, too, where a GPU is drawn, since one thread is no fair opponent.
    """
    found = []
    for results in ([own] if own else []) + list(machines):
        measured = results.select("ladder", hidden=128)
        for side in dict.fromkeys((m.device, m.threads) for m in measured):
            mine = [m for m in measured if (m.device, m.threads) == side]
            found.append((side, series(results, mine[0], own=results is own), mine))
    any_gpu = any(device != "cpu" for (device, _), _, _ in found)
    return [(label, mine) for (device, threads), label, mine in found if threads == 1 or device != "cpu" or any_gpu]


def ladder(
    sources: Sequence[tuple[str, Sequence[Timed]]], rungs: Sequence[str], floors: Sequence[str],
    predicted: Sequence[tuple[str, Mapping[str, Range]]] = (), path=None, **metadata,
) -> None:  # fmt: skip
    """The speed ladder: seconds per epoch of every rung on a logarithmic axis, the first rung at the top.

    Args:
        sources: (label, measurements) of every machine; the reader's own has a label that begins with `OWN`.
        rungs: names in the order of the ladder.
        floors: names of what no rung can be faster than; the fastest of them is drawn as a line.
        predicted: (label, seconds per epoch by rung) of cards that are not here: hollow, from the least to the most.
        path: a PNG file to save the figure in (with `metadata`), instead of showing it.
    """
    sources = [(label, {m.name: m for m in measured}) for label, measured in sources]
    lanes = [len(sources) + sum(name in found for _, found in predicted) for name in rungs]
    tops = [sum(lanes[:row]) + 0.8 * row for row in range(len(rungs))]  # a lane is one unit high
    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.16 * len(rungs) + 0.2 * sum(lanes)))

    def write(x: float, y: float, text: str) -> None:
        background = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # or the floor's line would cross it
        axis.annotate(text, (x, y), (5, 0), textcoords="offset points", va="center", fontsize=8, bbox=background)

    for i, (label, found) in enumerate(sources):
        color = PALETTE[i % len(PALETTE)]
        look = {"facecolor": color} if label.startswith(OWN) else {"facecolor": "white", "hatch": HATCHES[i % 5 + 1]}
        pairs = [(rungs[0], name) for name in rungs[1:]]
        gains = {c.names[1]: c.times for c in compare_in_turn(found.values(), pairs)}
        for top, name in zip(tops, rungs, strict=True):
            y = top + i + 0.5
            if name not in found:
                axis.annotate("not on this machine", (0.01, y), xycoords=axis.get_yaxis_transform(), va="center",
                              fontsize=7, color="grey")  # fmt: skip
                continue
            times = found[name].per_epoch()
            value, (low, high) = statistics.median(times), interval(times)
            axis.barh(y, value, height=0.9, edgecolor=color, label=label if name == rungs[0] else None, **look)
            axis.plot([low, high], [y, y], color="black", linewidth=2)
            text = f"{rounded(value, low, high)[0]} s" + (f", {gains[name]}x" if name in gains else "")
            write(high, y, text + (f" ({found[name].proof['products']})" if "products" in found[name].proof else ""))
        for at, floor in sorted((statistics.median(found[f].per_epoch()), f) for f in floors if f in found)[:1]:
            axis.axvline(at, color=color, linestyle="--", linewidth=1.2, label=f"the floor: {floor}, {number(at)} s")
    lane = [len(sources) + 0.5] * len(rungs)
    for i, (label, found) in enumerate(predicted, start=len(sources)):
        first = True
        for row, name in enumerate(rungs):
            if name in found:
                low, high = found[name]
                y, lane[row] = tops[row] + lane[row], lane[row] + 1
                axis.barh(y, high - low, left=low, height=0.7, facecolor="none", edgecolor=PALETTE[i % len(PALETTE)],
                          linestyle=":", linewidth=1.8, label=label if first else None)  # fmt: skip
                gain = Range(found[rungs[0]].low / high, found[rungs[0]].high / low) if rungs[0] in found else None
                write(high, y, f"{span(found[name])} s" + (f", {span(gain)}x" if gain and row else ""))
                first = False
    ends = [s for _, found in sources for name in (*rungs, *floors) if name in found for s in found[name].per_epoch()]
    ends += [end for _, found in predicted for times in found.values() for end in times]
    axis.set_yticks(
        [top + n / 2 for top, n in zip(tops, lanes, strict=True)],
        [f"{i}. {name}" for i, name in enumerate(rungs, start=1)],
    )
    axis.set_ylim(tops[-1] + lanes[-1] + 0.8, -0.8)
    axis.grid(axis="y", visible=False)
    axis.set(xscale="log", xlabel="seconds per epoch (logarithmic)", xlim=(min(ends) / 3, max(ends) * 4))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(loc="upper left", bbox_to_anchor=(0, -0.8 / figure.get_figheight()), fontsize=8)
    if path:
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=130, metadata=metadata)
        plt.close(figure)
    else:
        plt.show()
    for label, found in sources:
        ranked = sorted((statistics.median(m.per_epoch()), name) for name, m in found.items() if name in rungs)
        if ranked and ranked[0][1] != rungs[0]:
            for gain in compare_in_turn(found.values(), [(rungs[0], ranked[0][1])]):
                print(f"{label}, the fastest rung: {gain}")
    for label, found in predicted:
        times = ", ".join(f"{name} {span(found[name])} s" for name in rungs if name in found)
        print(f"{label}, seconds per epoch at least to at most: {times}.")


def scaling(rates: Mapping[str, Mapping[int, float]]) -> None:
    """Images/s over the number of processes, of every kind of scaling, beside what the first number promises."""
    axis = plt.subplots()[1]
    for i, (kind, found) in enumerate(rates.items()):
        axis.plot(
            list(found), list(found.values()), "-" if i == 0 else "--", marker=MARKERS[i], label=f"{kind} scaling"
        )
    counts = list(found)
    axis.plot(counts, [n * found[1] for n in counts], ":", color="black", label="ideal")
    axis.set(xscale="log", yscale="log", xlabel="processes", ylabel="images/s", xticks=counts, xticklabels=counts)
    axis.minorticks_off()
    axis.legend()
    plt.show()
    for kind, found in rates.items():
        print(f"{kind}: " + ", ".join(f"{n} process{'es' * (n > 1)} {r:,.0f} images/s" for n, r in found.items()))


def timeline(events: Sequence[tuple[str, str, float, float, int]], *, named: int, since="the step began") -> None:
    """What ran when: events (row, name, start, end, depth), in seconds, deeper ones drawn below.

    The `named` longest are numbered, and the numbers explained under the figure. `since`: when the time begins.
    """
    least = sorted((e[3] - e[2] for e in events), reverse=True)[:named][-1]
    rows = {}
    for row, _, _, _, depth in events:
        rows[row] = max(rows.get(row, 0), depth + 1)
    offsets, at = {}, 0
    for row, depth in rows.items():
        offsets[row], at = at, at + depth + 0.6
    axis = plt.subplots(figsize=(9, 1.2 + 0.28 * at))[1]
    start = min(e[2] for e in events)
    names = list(dict.fromkeys(e[1] for e in sorted(events, key=lambda e: e[2]) if e[3] - e[2] >= least))
    for row, name, begin, end, depth in events:
        color = PALETTE[names.index(name) % 6] if name in names else "lightgrey"
        left, width, y = (begin - start) * 1e6, (end - begin) * 1e6, offsets[row] + depth
        axis.barh(y, width, left=left, height=0.85, color=color, edgecolor="white", linewidth=0.3)
        if end - begin >= least:
            axis.text(left + width / 2, y, str(names.index(name) + 1), ha="center", va="center", fontsize=7)
    axis.set_yticks([offsets[r] + (d - 1) / 2 for r, d in rows.items()], list(rows))
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=f"µs since {since}")
    plt.show()
    for i, name in enumerate(names, start=1):
        longest = max(e[3] - e[2] for e in events if e[1] == name)
        print(f"{i:2d}  {name}: up to {longest * 1e6:.0f} µs")


def roofline(points: Sequence[tuple[str, str, float, float]], flops: float, bandwidth: float, *, device: str) -> None:
    """Points (series, batch size, FLOP per byte, FLOP/s) under two ceilings: FLOP/s, and bytes/s times FLOP per byte.

    S. Williams, A. Waterman, D. Patterson, Roofline: an insightful visual performance model, 2009.
    """
    axis = plt.subplots(figsize=(8, 4.6))[1]
    low, high = min(p[2] for p in points) / 2, max(max(p[2] for p in points), flops / bandwidth) * 3
    xs = [low * (high / low) ** (i / 100) for i in range(101)]
    roof = [min(flops, bandwidth * x) / 1e9 for x in xs]
    axis.plot(xs, roof, color="black", label=f"{device}: the measured ceilings")
    sizes = sorted({int(p[1]) for p in points})
    for i, name in enumerate(dict.fromkeys(p[0] for p in points)):
        mine = [p for p in points if p[0] == name]
        look = {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]}
        axis.plot([p[2] for p in mine], [p[3] / 1e9 for p in mine], color=look["color"], linewidth=0.7, alpha=0.5)
        for j, (_, size, x, y) in enumerate(mine):
            diameter = 3 + 3 * sizes.index(int(size))
            axis.plot(x, y / 1e9, linestyle="", markersize=diameter, label=None if j else name, **look)
    axis.axvline(flops / bandwidth, color="grey", linestyle=":", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="operations per byte (FLOP/byte)", ylabel="GFLOP/s")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend(loc="lower right", fontsize=8)
    plt.show()
    ridge = flops / bandwidth
    left = sum(x < ridge for _, _, x, _ in points)
    print(f"The larger a mark, the larger the batch: {', '.join(map(str, sizes))}.")
    print(f"{left} of {len(points)} points lie left of the ridge at {ridge:.1f} FLOP/byte, where memory is the limit.")


def curve(found: Sequence[Timed], x: str, what: str | None = None, per: float = 1.0) -> tuple[list[float], ...]:
    """What `lines` draws of measurements: over the parameter `x`, rates of `what`, or seconds; with their intervals."""
    ends = [m.rate_interval(what) if what else interval(m.seconds) for m in found]
    ys = [(m.rate(what) if what else m.median) / per for m in found]
    return [m.parameters[x] for m in found], ys, [e[0] / per for e in ends], [e[1] / per for e in ends]


def lines(
    series: Mapping[str, Sequence[Sequence[float]]], *, xlabel: str, ylabel: str,
    marks: Mapping[str, float] | None = None, log: str = "xy",
) -> None:  # fmt: skip
    """Curves by name: (xs, ys), and (lows, highs) of the intervals where there are. `marks` are named vertical lines.

    This machine's are solid and filled; what is simulated, derived or predicted is dashed and hollow; what others have
    published is grey and dotted. `log`: the logarithmic axes.
    """
    axis = plt.subplots()[1]
    for i, (name, (xs, ys, *band)) in enumerate(series.items()):
        look = {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]}
        if name.startswith(OTHERS):
            look = {"color": GREYS[i % len(GREYS)], "marker": "D", "linestyle": ":"}
        elif not name.startswith(OWN):
            look |= {"linestyle": "--", "markerfacecolor": "white"}
        axis.plot(xs, ys, label=name, markersize=5, **look)
        if band:
            axis.fill_between(xs, *band, color=look["color"], alpha=0.15)
    for name, at in (marks or {}).items():
        axis.axvline(at, color="black", linestyle=":", linewidth=1.2)
        axis.annotate(
            name, (at, 1), (3, -9), xycoords=axis.get_xaxis_transform(), textcoords="offset points", fontsize=8
        )
    axis.set(xlabel=xlabel, ylabel=ylabel, **{f"{c}scale": "log" for c in log})
    for letter, side in (("x", axis.xaxis), ("y", axis.yaxis)):
        side.set_major_formatter("{x:,.10g}")
        if letter in log:
            side.set_minor_formatter(NullFormatter())
    every = [y for _, ys, *_ in series.values() for y in ys]
    if "y" in log and max(every) < 100 * min(every):  # or a tick or two would be all
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.legend(loc="upper left", bbox_to_anchor=(0, -0.18), fontsize=9)
    plt.show()


def lanes_to_scale(rows: Sequence[tuple[str, int, int]]) -> None:
    """Processors side by side, drawn to scale: (name, multiprocessors or cores, lanes of each), a dot for each lane."""
    pictures = []
    for _, count, lanes in rows:
        wide = 16 if lanes > 64 else 8 if lanes > 16 else 4
        high, columns = -(-lanes // wide), max(1, round((1.5 * count * lanes / wide**2) ** 0.5))
        picture = torch.zeros(-(-count // columns) * (high + 2), columns * (wide + 2))
        for i in range(count):
            top, left = i // columns * (high + 2), i % columns * (wide + 2)
            for lane in range(lanes):
                picture[top + lane // wide, left + lane % wide] = 1
        pictures.append(picture)
    sizes = [p.shape[1] for p in pictures]
    axes = plt.subplots(1, len(rows), figsize=(9, 3.4), width_ratios=[max(s, 40) for s in sizes])[1]
    tallest = max(p.shape[0] for p in pictures)
    for axis, picture, (name, count, lanes) in zip(axes, pictures, rows, strict=True):
        width = max(picture.shape[1], 40)
        axis.imshow(picture.numpy(), cmap="Blues", vmin=0, vmax=1.2, interpolation="nearest")
        axis.set(xlim=(-1, width), ylim=(tallest, -1), xticks=[], yticks=[])
        axis.set_title(f"{name}\n{count} x {lanes}", fontsize=9)
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(False)
    plt.show()
    first, *others = ((name, count * lanes) for name, count, lanes in rows)
    for name, every in others:
        print(f"{name}: {every:,} lanes, {every / first[1]:,.0f} times as many as {first[0]} ({first[1]}).")


def live(history: Sequence[tuple[str, int]], kept: int, title: str) -> None:
    """The bytes of a training step's tensors after each of its operations; `kept`, which stay, are below them."""
    axis = plt.subplots(figsize=(8, 3.2))[1]
    ys = [(kept + size) / 1e6 for _, size in history]
    axis.fill_between(range(len(ys)), kept / 1e6, ys, step="mid", color=PALETTE[5], alpha=0.6, label="made in the step")
    axis.fill_between(range(len(ys)), 0, kept / 1e6, color=PALETTE[0], alpha=0.6, hatch="//", label="there before it")
    top = max(range(len(ys)), key=ys.__getitem__)
    axis.annotate(history[top][0], (top, ys[top]), (0, 4), textcoords="offset points", fontsize=8, ha="center")
    axis.set(xlabel="operation of the step, in order", ylabel="MB", title=title, ylim=(0, 1.35 * max(ys)))
    axis.legend(loc="upper right", fontsize=8, ncols=2)
    plt.show()
    print(
        f"The most: {number(ys[top])} MB, at the operation {history[top][0]}, of which {number(kept / 1e6)} were there."
    )


def regimes(
    name: str, numbers: ThreeNumbers, points: Sequence[tuple[str, float, float]], rungs: Mapping[str, Sequence[str]]
) -> None:
    """The plane of operations per byte and bytes, divided into what binds on a device: launches, bytes or operations.

    Launching binds where bytes and operations take less than it does. `points`: (label, FLOP per byte, bytes) of steps;
    `rungs`: numbers of the ladder's rungs that relieve each regime, written into its region.
    """
    ridge, floor = numbers.rate / numbers.bandwidth, numbers.launch * numbers.bandwidth
    xs = [p[1] for p in points]
    low, high = min(*xs, ridge) / 4, max(*xs, ridge) * 6
    least, most = min(*(p[2] for p in points), floor) / 6, max(*(p[2] for p in points), floor) * 8
    grid = [low * (high / low) ** (i / 200) for i in range(201)]
    edge = [floor * min(1, ridge / x) for x in grid]
    axis = plt.subplots(figsize=(8.5, 4.6))[1]
    regions = {
        "launches": (grid, [least] * 201, edge),
        "bytes": ([x for x in grid if x <= ridge], floor, most),
        "operations": ([x for x in grid if x > ridge], [e for e, x in zip(edge, grid, strict=True) if x > ridge], most),
    }
    at = {
        "launches": (0.5, 0.04, "center", "bottom"),
        "bytes": (0.02, 0.97, "left", "top"),
        "operations": (0.98, 0.97, "right", "top"),
    }
    for i, (regime, (where, below, above)) in enumerate(regions.items()):
        axis.fill_between(where, below, above, color=PALETTE[i], alpha=0.15, hatch=HATCHES[i + 1], edgecolor="white")
        x, y, across, along = at[regime]
        text = f"{regime}\nrungs " + ", ".join(rungs[regime])
        axis.text(x, y, text, transform=axis.transAxes, fontsize=9, ha=across, va=along)
    for label, x, y in points:
        axis.plot(x, y, "o", color="black", markersize=5)
        axis.annotate(label, (x, y), (6, -3), textcoords="offset points", fontsize=8)
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(least, most), title=name,
             xlabel="operations per byte (FLOP/byte)", ylabel="bytes of a step")  # fmt: skip
    axis.xaxis.set_major_formatter("{x:g}")
    plt.show()
    print(f"{name}: the ridge is at {ridge:.3g} FLOP/byte; below {floor / 1e6:.3g} MB a step, launching takes longest.")
