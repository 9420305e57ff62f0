"""Figures from plain numbers: one style for the course, and a handful of shapes.

A shape takes names and numbers, and returns its axes and the sentence that says what it shows, made from the numbers.
It neither shows nor prints: a chapter's room does, and knows what the numbers are of.

Colours are Okabe and Ito's palette, which readers with any colour vision can tell apart; series differ by marker,
hatching and line as well. What kind a number is shows at a glance: this machine's are filled and solid, all others
hollow; recorded ones are dashed and hatched, published ones grey and dotted.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import LogLocator, NullFormatter

# Okabe and Ito's, for colour-blind readers; two of them darker, so that all stand out from white by 3 to 1 (WCAG 2.2).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B88300", "#2E9BD6", "#000000")
CAUSES = {  # what a step's time goes into: one colour a cause, in every figure
    "launches": PALETTE[0], "bytes": PALETTE[1], "operations": PALETTE[2], "waiting": PALETTE[3],
    "loading": PALETTE[4], "copying": PALETTE[5], "not explained": "#8C8C8C",
}  # fmt: skip
GREYS = ("#222222", "#777777", "#4d4d4d", "#8c8c8c")  # of published figures
MARKERS = "os^vPXh"
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
OWN, RECORDED, PUBLISHED, PREDICTED = "this machine", "recorded", "published", "predicted"
plt.style.use(Path(__file__).with_name("course.mplstyle"))


class Drawn(NamedTuple):
    """A figure's axes, and the sentence that says what it shows."""

    axes: plt.Axes
    says: str

    def show(self) -> None:
        """Shows the figure, with its sentence as the image's alternative text, and prints the sentence under it."""
        from IPython.display import display  # here: a benchmark draws nothing

        display(self.axes.figure, metadata={"image/png": {"alt": self.says}})
        plt.close(self.axes.figure)
        print(self.says)


class Series(NamedTuple):
    """A curve, or one bar in each of some rows.

    `xs` are numbers (of a curve) or rows' names (of bars); `lows` and `highs` the ends of intervals or of a predicted
    range, whose `ys` may then be None. `notes` are written beside bars in place of their values.
    """

    name: str
    kind: str  # OWN, RECORDED, PUBLISHED or PREDICTED
    xs: Sequence
    ys: Sequence[float | None]
    lows: Sequence[float] | None = None
    highs: Sequence[float] | None = None
    notes: Sequence[str] | None = None

    @property
    def label(self) -> str:
        """The name, with the kind where the name does not say it."""
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
        color, recorded = self.line(i)["color"], self.kind == RECORDED
        return {
            "facecolor": color if self.kind == OWN else "white", "edgecolor": color, "linewidth": 1.8,
            "linestyle": "-" if recorded or self.kind == OWN else ":", "hatch": HATCHES[1 + i % 5] * recorded,
        }  # fmt: skip


def number(value: float) -> str:
    """Three significant digits below a hundred, none after the point above."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def span(found: Sequence[float], per: float = 1.0) -> str:
    """ "2.1 to 5.3": a predicted range, its ends with two significant digits, or none after the point."""
    return " to ".join(f"{x / per:.2g}" if x / per < 100 else f"{float(f'{x / per:.2g}'):,.0f}" for x in found)


def bars(series: Sequence[Series], *, unit: str, order: Sequence[str] = (), log: bool = False) -> Drawn:
    """Horizontal bars, a group a row, in the `order` of the rows' names; without it, in the one in which they come.

    An interval is a black line at the bar's end; a range without a value is a bar from its one end to the other. With
    `log`, for values too far apart for bars, dots on a logarithmic axis: one a value, two a range.
    """
    rows = list(dict.fromkeys(row for s in series for row in s.xs))
    rows, middles, y = [row for row in order if row in rows] or rows, [], 0.0
    figure, axis = plt.subplots()
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # or another line would cross it
    place = {"textcoords": "offset points", "va": "center", "fontsize": 8, "bbox": box}
    for row in rows:
        inside = [(i, s, s.xs.index(row)) for i, s in enumerate(series) if row in s.xs]
        for i, s, j in inside:
            low, high = s.ends(j)
            left, right = (low, high) if s.ys[j] is None else (0, s.ys[j])
            if log:
                axis.plot([left or right, right], [y, y], label=None if j else s.label, **s.line(i))
            else:
                axis.barh(y, right - left, left=left, label=None if j else s.label, **s.bar(i))
            if s.ys[j] is not None:
                axis.plot([low, high], [y, y], color="black", linewidth=2)
            axis.annotate(s.notes[j] if s.notes else s.text(j), (high, y), (5, 0), **place)
            y += 1
        middles.append(y - (1 + len(inside)) / 2)
        y += 0.8
    figure.set_size_inches(8, 1.2 + 0.24 * y)
    least, most = axis.dataLim.intervalx
    axis.set_yticks(middles, rows)
    axis.set_ylim(y - 0.8, -0.8)
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=unit, **{"xscale": "log", "xlim": (least / 2, most * 5)} if log else {"xlim": (0, most * 1.25)})
    axis.xaxis.set_major_formatter("{x:,.10g}")
    figure.legend(loc="outside lower left")
    says = []
    for s in series:
        notes = s.notes or [f"{s.text(j)} {unit}" for j in range(len(s.xs))]
        each = "; ".join(map(" ".join, zip(s.xs, notes, strict=True)))
        says.append(f"{s.label}:\n    {each}{f' ({unit})' * bool(s.notes)}.")
    return Drawn(axis, "\n".join(says).replace(",\n", ", "))  # of a row's name


def lines(
    series: Sequence[Series], *, xlabel: str, ylabel: str, marks: Mapping[str, float] | None = None, log: str = "xy",
) -> Drawn:  # fmt: skip
    """Curves with the band of their intervals. `marks` are named vertical lines; `log` the logarithmic axes."""
    axis = plt.subplots()[1]
    for i, s in enumerate(series):
        axis.plot(s.xs, s.ys, label=s.label, markersize=5, **s.line(i))
        if s.lows:
            axis.fill_between(s.xs, s.lows, s.highs, color=s.line(i)["color"], alpha=0.15)
    for name, at in (marks or {}).items():
        axis.axvline(at, color="black", linestyle=":", linewidth=1.2)
        place = {"xycoords": axis.get_xaxis_transform(), "textcoords": "offset points"}
        axis.annotate(name, (at, 1), (3, -9), fontsize=8, **place)
    axis.set(xlabel=xlabel, ylabel=ylabel, **{f"{c}scale": "log" for c in log})
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter("{x:,.10g}")
        side.set_minor_formatter(NullFormatter())
    every = [y for s in series for y in s.ys]
    if "y" in log and max(every) < 100 * min(every):  # or a tick or two would be all
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.legend(loc="upper left", bbox_to_anchor=(0, -0.18))
    ends = ([f"{number(s.ys[j])} {ylabel} at {number(s.xs[j])}" for j in sorted({0, len(s.xs) - 1})] for s in series)
    return Drawn(axis, "\n".join(f"{s.label}: {', '.join(said)}." for s, said in zip(series, ends, strict=True)))


def stacked(rows: Mapping[str, Mapping[str, float]], *, unit: str) -> Drawn:
    """Bars of the same parts, one a row.

    A part that is called by its cause ("bytes", "bytes: update") has the cause's colour.
    """
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    axis = plt.subplots(figsize=(8, 1.6 + 0.5 * len(rows)))[1]
    left = [0.0] * len(rows)
    for i, name in enumerate(names):
        color = CAUSES.get(name.split(":")[0], PALETTE[i % len(PALETTE)])
        widths = [max(0.0, parts.get(name, 0.0)) for parts in rows.values()]
        look = {"color": color, "edgecolor": "white", "hatch": HATCHES[i % len(HATCHES)]}
        axis.barh(list(rows), widths, left=left, height=0.6, label=name, **look)
        left = [at + width for at, width in zip(left, widths, strict=True)]
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=unit)
    axis.figure.legend(loc="outside lower left", ncols=4)
    said = []
    for row, parts in rows.items():
        each = ", ".join(f"{name} {number(parts[name])}" for name in names if name in parts)
        said.append(f"{' '.join(row.split())}: {number(sum(parts.values()))} {unit} = {each}")
    return Drawn(axis, "\n".join(said))


def grid(
    values: torch.Tensor, texts: Sequence[Sequence[str]], *, rows: tuple[str, Sequence],
    columns: tuple[str, Sequence], title: str, label: str, signed: bool = False,
) -> Drawn:  # fmt: skip
    """A table `[R, C]` whose cells are coloured by their values and hold their texts. `rows`, `columns`: (what, names).

    With `signed` colours change side at 0, and both sides reach equally far; without, they go from 0 up.
    """
    limit = float(values.abs().max()) or 1.0
    look = {"cmap": "PuOr_r", "vmin": -limit} if signed else {"cmap": "Blues", "vmin": 0}
    figure, axis = plt.subplots(figsize=(1.6 + 0.9 * len(columns[1]), 1.1 + 0.5 * len(rows[1])))
    picture = axis.imshow(values.double().numpy(), aspect="auto", vmax=limit, **look)
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            color = "white" if abs(values[i, j]) > 0.6 * limit else "black"
            axis.text(j, i, text, ha="center", va="center", color=color, fontsize=9)
    axis.set_xticks(range(len(columns[1])), columns[1])
    axis.set_yticks(range(len(rows[1])), rows[1])
    axis.grid(False)
    axis.set(xlabel=columns[0], ylabel=rows[0], title=title)
    figure.colorbar(picture, ax=axis, label=label)
    i, j = divmod(int(values.argmax()), len(columns[1]))
    return Drawn(axis, f"The largest: {texts[i][j]}, at {rows[0]} {rows[1][i]}, {columns[0]} {columns[1][j]}.")


def timeline(events: Sequence[tuple[str, str, float, float, int]], *, named: int, colors: Mapping[str, str]) -> Drawn:
    """What ran when: events (row, name, start, end, depth), in seconds, in their name's colour, deeper ones below.

    The `named` longest are numbered, and the numbers explained by the sentence.
    """
    order, start, longest = [*dict.fromkeys(e[0] for e in events)], min(e[2] for e in events), {}
    least = sorted((e[3] - e[2] for e in events), reverse=True)[:named][-1]
    rows = sorted({(order.index(e[0]), e[4]) for e in events})
    axis = plt.subplots(figsize=(9, 1.2 + 0.28 * len(rows)))[1]
    for row, name, begin, end, depth in sorted(events, key=lambda e: e[2]):
        left, width, y = (begin - start) * 1e6, (end - begin) * 1e6, rows.index((order.index(row), depth))
        axis.barh(y, width, left=left, height=0.85, color=colors[name], edgecolor="white", linewidth=0.3)
        if end - begin >= least:
            longest[name] = max(longest.get(name, 0.0), width)
            place = {"ha": "center", "va": "center", "fontsize": 7, "color": "white"}
            axis.text(left + width / 2, y, str(list(longest).index(name) + 1), **place)
    axis.set_yticks(range(len(rows)), ["" if depth else order[i] for i, depth in rows])
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlabel="μs since the beginning")
    said = [f"{i:2d}  {name}: up to {width:.0f} μs" for i, (name, width) in enumerate(longest.items(), start=1)]
    return Drawn(axis, "\n".join(said))


def pictures(
    images: torch.Tensor, titles: Sequence[str], *, columns: int = 10, names: Sequence[str] = (), colorbar: str = ""
) -> Drawn:
    """Images `[N, H, W]` in rows of `columns`, a title over each, a name before each row.

    With `colorbar`, its label: blue below zero, red above, one scale for all. Without: grey, each by itself.
    """
    rows, width = -(-len(images) // columns), max(0.9, 0.1 * max(map(len, titles), default=0))
    figure, axes = plt.subplots(rows, columns, figsize=(columns * width, rows * 1.15), squeeze=False)
    limit = float(images.abs().max())
    look = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if colorbar else {"cmap": "gray_r"}
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    for axis, image, title in zip_longest(axes.flat[: len(images)], images.cpu().numpy(), titles, fillvalue=""):
        picture = axis.imshow(image, **look)
        axis.set_title(title, fontsize=9)
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
