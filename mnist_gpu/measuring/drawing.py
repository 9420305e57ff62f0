"""Figures from plain numbers: one style for the course, and a handful of shapes.

A shape takes names and numbers, and returns its axes and the sentence that says what it shows, made from the numbers.
It neither shows nor prints: a chapter's room does, and knows what the numbers are of.

Colours are Okabe and Ito's palette, which readers with any colour vision can tell apart; series differ by marker,
hatching and line as well. What kind a number is shows at a glance: this machine's are filled and solid, recorded ones
hollow and dashed, published ones grey diamonds and dotted, predicted and simulated ones hollow, and called so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import LogLocator, NullFormatter

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^vPXh"
GREYS = ("#222222", "#777777", "#4d4d4d", "#999999")  # of published figures, with the diamond that no other series has
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
OWN, RECORDED, PUBLISHED, PREDICTED, SIMULATED = "this machine", "recorded", "published", "predicted", "simulated"
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


class Drawn(NamedTuple):
    """A figure's axes, and the sentence that says what it shows."""

    axes: plt.Axes
    says: str

    def show(self) -> None:
        """Shows the figure, and prints its sentence under it."""
        plt.show()
        print(self.says)


@dataclass(frozen=True)
class Series:
    """A curve, or one bar in each of some rows.

    `xs` are numbers (of a curve) or rows' names (of bars); `lows` and `highs` the ends of intervals or of a predicted
    range, whose `ys` may then be None. `notes` are written beside bars in place of their values.
    """

    name: str
    kind: str  # OWN, RECORDED, PUBLISHED, PREDICTED or SIMULATED
    xs: Sequence
    ys: Sequence[float | None]
    lows: Sequence[float] | None = None
    highs: Sequence[float] | None = None
    notes: Sequence[str] | None = None

    @property
    def label(self) -> str:
        return self.name if self.kind == RECORDED else f"{self.kind}: {self.name}"

    def ends(self, j: int) -> tuple[float, float]:
        """Of the j-th interval or range; the value itself, twice, where there is none."""
        return (self.lows[j], self.highs[j]) if self.lows else (self.ys[j], self.ys[j])

    def text(self, j: int) -> str:
        """The j-th value, or its range, with the digits that one reads."""
        return span(self.ends(j)) if self.ys[j] is None else number(self.ys[j])

    def line(self, i: int) -> dict:
        """How the i-th curve of a figure looks."""
        if self.kind == PUBLISHED:
            return {"color": GREYS[i % len(GREYS)], "marker": "D", "linestyle": ":"}
        look = {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]}
        return look if self.kind == OWN else look | {"linestyle": "--", "markerfacecolor": "white"}

    def bar(self, i: int) -> dict:
        """How the bars of the i-th series look."""
        color = GREYS[i % len(GREYS)] if self.kind == PUBLISHED else PALETTE[i % len(PALETTE)]
        if self.kind == OWN:
            return {"facecolor": color, "edgecolor": color}
        if self.kind == RECORDED:
            return {"facecolor": "white", "edgecolor": color, "hatch": HATCHES[1 + i % 5]}
        return {"facecolor": "none", "edgecolor": color, "linestyle": ":", "linewidth": 1.8}


def number(value: float) -> str:
    """Three significant digits below a hundred, none after the point above."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def span(found: Sequence[float], per: float = 1.0) -> str:
    """ "2.1 to 5.3": a predicted range, its ends with two significant digits, or none after the point."""
    return " to ".join(f"{x / per:.2g}" if x / per < 100 else f"{float(f'{x / per:.2g}'):,.0f}" for x in found)


def bars(
    series: Sequence[Series], *, unit: str, title: str = "", log: bool = False, order: Sequence[str] = ()
) -> Drawn:
    """Horizontal bars, a group a row, in the `order` of the rows' names; without it, in the one in which they come.

    An interval is a black line at the bar's end; a range without a value is a bar from its one end to the other; a
    published figure is a diamond on a dotted line.
    """
    rows = list(dict.fromkeys(row for s in series for row in s.xs))
    rows = [row for row in order if row in rows] or rows
    lanes = {row: [i for i, s in enumerate(series) if row in s.xs] for row in rows}
    tops, at = {}, 0.0
    for row in rows:
        tops[row], at = at, at + len(lanes[row]) + 0.8
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.24 * at))
    for i, s in enumerate(series):
        look = s.bar(i)
        for j, row in enumerate(s.xs):
            _bar(axis, tops[row] + lanes[row].index(i) + 0.5, s, j, look, log)
    ends = [end for s in series for j in range(len(s.xs)) for end in s.ends(j)]
    axis.set_yticks([tops[r] + len(lanes[r]) / 2 for r in rows], rows)
    axis.set_ylim(at - 0.5, -0.3)  # also where there are published figures alone, which leave no margin by themselves
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=f"{unit} (logarithmic)" if log else unit, title=title)
    axis.set(**{"xscale": "log", "xlim": (min(ends) / 3, max(ends) * 6)} if log else {"xlim": (0, max(ends) * 1.25)})
    axis.xaxis.set_major_formatter("{x:,g}" if max(ends) < 1e5 else "{x:,.0f}")
    if len(series) > 1 or series[0].kind != OWN:
        figure.legend(loc="outside lower left", fontsize=9)
    return Drawn(axis, "\n".join(_range_of(s, unit) for s in series))


def _bar(axis: plt.Axes, y: float, s: Series, j: int, look: dict, log: bool) -> None:
    """One bar of `bars`, with its interval and its value beside it."""
    value, (low, high), label = s.ys[j], s.ends(j), None if j else s.label
    if s.kind == PUBLISHED:
        axis.plot([value / 1e6 if log else 0, value], [y, y], ":", color=look["edgecolor"], linewidth=1.2)
        axis.plot(value, y, "D", color=look["edgecolor"], markersize=6, label=label)
    elif value is None:
        axis.barh(y, high - low, left=low, height=0.7, label=label, **look)
    else:
        axis.barh(y, value, height=0.9, label=label, **look)
        axis.plot([low, high], [y, y], color="black", linewidth=2)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # or another line would cross it
    place = {"textcoords": "offset points", "va": "center", "fontsize": 8, "bbox": box}
    axis.annotate(s.notes[j] if s.notes else s.text(j), (high, y), (5, 0), **place)


def _range_of(s: Series, unit: str) -> str:
    """Where a series of bars begins and ends."""
    if None in s.ys or len(s.xs) == 1:
        return f"{s.label}: " + ", ".join(f"{row} {s.text(j)} {unit}" for j, row in enumerate(s.xs)) + "."
    (low, slowest), *_, (high, fastest) = sorted(zip(s.ys, s.xs, strict=True))
    return f"{s.label}: from {number(low)} {unit} ({slowest}) to {number(high)} ({fastest})."


def lines(
    series: Sequence[Series], *, xlabel: str, ylabel: str, marks: Mapping[str, float] | None = None, log: str = "xy",
) -> Drawn:  # fmt: skip
    """Curves with the band of their intervals. `marks` are named vertical lines; `log` the logarithmic axes."""
    axis = plt.subplots()[1]
    for i, s in enumerate(series):
        look = s.line(i)
        axis.plot(s.xs, s.ys, label=s.label, markersize=5, **look)
        if s.lows:
            axis.fill_between(s.xs, s.lows, s.highs, color=look["color"], alpha=0.15)
    for name, at in (marks or {}).items():
        axis.axvline(at, color="black", linestyle=":", linewidth=1.2)
        place = {"xycoords": axis.get_xaxis_transform(), "textcoords": "offset points"}
        axis.annotate(name, (at, 1), (3, -9), fontsize=8, **place)
    axis.set(xlabel=xlabel, ylabel=ylabel, **{f"{c}scale": "log" for c in log})
    for letter, side in (("x", axis.xaxis), ("y", axis.yaxis)):
        side.set_major_formatter("{x:,.10g}")
        if letter in log:
            side.set_minor_formatter(NullFormatter())
    every = [y for s in series for y in s.ys]
    if "y" in log and max(every) < 100 * min(every):  # or a tick or two would be all
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.legend(loc="upper left", bbox_to_anchor=(0, -0.18), fontsize=9)
    said = [
        f"{s.label}: {number(s.ys[0])} {ylabel} at {number(s.xs[0])}, {number(s.ys[-1])} at {number(s.xs[-1])}."
        for s in series
    ]
    return Drawn(axis, "\n".join(said))


def stacked(
    rows: Mapping[str, Mapping[str, float]], *, unit: str, wholes: Mapping[str, float] | None = None,
    hollow: Sequence[str] = (), least: float = 0.01, title: str = "",
) -> Drawn:  # fmt: skip
    """Bars of the same parts, one a row; parts below the share `least` of every bar are left out, and named.

    `wholes`: of rows that were also measured as a whole, a line there. Rows that are `hollow` are predicted.
    """
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    small = [n for n in names if all(abs(p.get(n, 0.0)) < least * sum(p.values()) for p in rows.values())]
    axis = plt.subplots(figsize=(8, 1.6 + 0.5 * len(rows)))[1]
    left = dict.fromkeys(rows, 0.0)
    for i, name in [
        (i, n) for i, n in enumerate(names) if n not in small
    ]:  # a part's colour is its own in every figure
        widths = [max(0.0, parts.get(name, 0.0)) for parts in rows.values()]
        look = {"color": PALETTE[i % len(PALETTE)], "hatch": HATCHES[i % len(HATCHES)], "edgecolor": "white"}
        drawn = axis.barh(list(rows), widths, left=list(left.values()), height=0.6, label=name, **look)
        for row, bar in zip(rows, drawn, strict=True):
            if row in hollow:
                bar.set(facecolor="white", edgecolor=look["color"] if bar.get_width() else "white")
        left = {row: at + width for (row, at), width in zip(left.items(), widths, strict=True)}
    for row, whole in (wholes or {}).items():
        y = list(rows).index(row)
        axis.plot([whole, whole], [y - 0.4, y + 0.4], "--", color="black", label=f"as a whole: {number(whole)} {unit}")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=unit, title=title)
    axis.figure.legend(loc="outside lower left", fontsize=9, ncols=4)
    said = []
    for row, parts in rows.items():
        each = ", ".join(f"{name} {number(parts[name])}" for name in names if name in parts and name not in small)
        said.append(f"{row.replace(chr(10), ' ')}: {number(sum(parts.values()))} {unit} = {each}")
    said += [f"Too small to draw: {', '.join(small)}."] * bool(small)
    return Drawn(axis, "\n".join(said))


def grid(
    values: torch.Tensor, texts: Sequence[Sequence[str]], *, rows: Sequence, columns: Sequence, xlabel: str,
    ylabel: str, title: str = "", label: str = "", around: float | None = None,
) -> Drawn:  # fmt: skip
    """A table `[R, C]` whose cells are coloured by their values and hold their texts.

    With `around` colours change side there, and both sides reach equally far; without, they go from 0 up.
    """
    limit = float((values - (around or 0)).abs().max()) or 1.0
    side = {"cmap": "Blues", "vmin": 0, "vmax": limit}
    if around is not None:
        side = {"cmap": "PuOr_r", "vmin": around - limit, "vmax": around + limit}
    figure, axis = plt.subplots(figsize=(1.6 + 0.9 * len(columns), 1.1 + 0.5 * len(rows)))
    picture = axis.imshow(values.double().numpy(), aspect="auto", **side)
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            r, g, b, _ = picture.cmap(picture.norm(float(values[i, j])))
            dark = 0.299 * r + 0.587 * g + 0.114 * b < 0.5
            axis.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize=9)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.grid(False)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    figure.colorbar(picture, ax=axis, label=label)
    at = int(values.argmax())
    i, j = divmod(at, len(columns))
    return Drawn(axis, f"The largest: {texts[i][j]}, at {ylabel} {rows[i]}, {xlabel} {columns[j]}.")


def timeline(events: Sequence[tuple[str, str, float, float, int]], *, named: int, since="the step began") -> Drawn:
    """What ran when: events (row, name, start, end, depth), in seconds, deeper ones drawn below.

    The `named` longest are numbered, and the numbers explained by the sentence. `since`: when the time begins.
    """
    least = sorted((e[3] - e[2] for e in events), reverse=True)[:named][-1]
    depths = {}
    for row, _, _, _, depth in events:
        depths[row] = max(depths.get(row, 0), depth + 1)
    offsets, at = {}, 0.0
    for row, depth in depths.items():
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
    axis.set_yticks([offsets[r] + (d - 1) / 2 for r, d in depths.items()], list(depths))
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=f"µs since {since}")
    longest = {name: max(e[3] - e[2] for e in events if e[1] == name) for name in names}
    said = [f"{i:2d}  {name}: up to {longest[name] * 1e6:.0f} µs" for i, name in enumerate(names, start=1)]
    return Drawn(axis, "\n".join(said))


def pictures(
    images: torch.Tensor, titles: Sequence[str], *, columns: int = 10, width: float = 0.9, names: Sequence[str] = (),
    colorbar: str = "",
) -> Drawn:  # fmt: skip
    """Images `[N, H, W]` in rows of `columns`, each `width` inches wide, a title over each, a name before each row.

    With `colorbar`, its label: blue below zero, red above, one scale for all. Without: grey, each by itself.
    """
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * width, rows * 1.15), squeeze=False)
    limit = float(images.abs().max())
    look = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if colorbar else {"cmap": "gray_r"}
    for i, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
        if i < len(images):
            picture = axis.imshow(images[i].cpu().numpy(), **look)
            axis.set_title(titles[i] if i < len(titles) else "", fontsize=9)
    for axis, name in zip(axes[:, 0], names, strict=False):
        axis.set_ylabel(name)
    if colorbar:
        figure.colorbar(picture, ax=axes, label=colorbar)
    return Drawn(axes[0, 0], f"{len(images)} pictures: {', '.join(dict.fromkeys(titles)) or ', '.join(names)}.")


def columns(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Rows of text under a head, in columns: the first to the left, the others to the right."""
    widths = [max(len(str(row[i])) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join([f"{first!s:<{widths[0]}}", *(f"{c!s:>{w}}" for c, w in zip(others, widths[1:], strict=True))])
        for first, *others in (head, ["-" * w for w in widths], *rows)
    )
