"""Every shape draws what it is given, returns its axes, and says it in a sentence made from the numbers."""

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgb

from mnist_gpu.measuring import drawing
from mnist_gpu.measuring.drawing import OWN, PREDICTED, PUBLISHED, Series, number, span

ROWS = ["textbook", "no wait per step"]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_marks_stand_out_from_white():
    """WCAG 2.2, 1.4.11: relative luminance, and a contrast of 3 to 1."""
    for color in {*drawing.PALETTE, *drawing.CAUSES.values(), *drawing.GREYS}:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        luminance = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        assert 1.05 / (luminance + 0.05) >= 3, color


def widths(axis):
    return sorted(round(p.get_width(), 6) for p in axis.patches)


def test_bars_have_their_values_and_a_range_goes_from_end_to_end():
    mine = Series("a CPU", OWN, ROWS, [8.0, 2.0], [7.0, 1.5], [9.0, 2.5])
    predicted = Series("T4", PREDICTED, ROWS[1:], [None], [0.5], [0.75])
    sheet = Series("H100", PUBLISHED, ROWS[1:], [0.25])
    axis, says = drawing.bars([mine, predicted, sheet], unit="s")
    assert widths(axis) == [0.25, 0.25, 2.0, 8.0]
    assert {t.get_text() for t in axis.texts} == {"8", "2", "0.5 to 0.75", "0.25"}
    assert [t.get_text() for t in axis.get_yticklabels()] == ROWS
    for part in ("a CPU", "textbook 8 s", "no wait per step 2 s", "predicted: T4", "0.5 to 0.75", "published: H100"):
        assert part in says


def test_on_a_logarithmic_axis_a_value_is_a_dot_and_a_range_is_two():
    mine = Series("a CPU", OWN, ROWS, [8.0, 2.0], [7.0, 1.5], [9.0, 2.5], ["8 s", "2 s, x 4"])
    predicted = Series("T4", PREDICTED, ROWS[1:], [None], [0.5], [0.75])
    axis, says = drawing.bars([mine, predicted], unit="s an epoch", order=ROWS[::-1], log=True)
    dots = [sorted({*line.get_xdata()}) for line in axis.lines if line.get_marker() in drawing.MARKERS]
    assert dots == [[2.0], [0.5, 0.75], [8.0]] and axis.get_xscale() == "log" and not axis.patches
    assert [t.get_text() for t in axis.get_yticklabels()] == ROWS[::-1]
    assert "textbook 8 s; no wait per step 2 s, x 4 (s an epoch)." in says
    assert "no wait per step 0.5 to 0.75 s an epoch" in says


def test_lines_have_their_points_bands_and_marks():
    found = Series("one kernel", OWN, [1, 10, 100], [3.0, 5.0, 40.0], [2.0, 4.0, 30.0], [4.0, 6.0, 50.0])
    axis, says = drawing.lines([found], xlabel="numbers", ylabel="μs", marks={"here": 10})
    assert list(axis.lines[0].get_xdata()) == [1, 10, 100] and list(axis.lines[0].get_ydata()) == [3.0, 5.0, 40.0]
    assert len(axis.collections) == 1 and axis.get_xscale() == axis.get_yscale() == "log"
    assert "here" in {t.get_text() for t in axis.texts} and "3 μs at 1, 40 μs at 100" in says


def test_stacked_parts_follow_each_other():
    rows = {"here": {"load": 8.0, "compute": 4.0}, "there": {"load": 1.0, "compute": 2.0}}
    axis, says = drawing.stacked(rows, unit="μs")
    assert widths(axis) == [1.0, 2.0, 4.0, 8.0]
    assert sorted(p.get_x() for p in axis.patches) == [0.0, 0.0, 1.0, 8.0]
    assert "here: 12 μs = load 8, compute 4" in says and "there: 3 μs = load 1, compute 2" in says


def test_a_grid_has_its_texts_and_names_the_largest():
    values, sides = (
        torch.tensor([[1.0, -2.0], [0.5, 3.0]]),
        {"rows": ("batch", [32, 64]), "columns": ("width", [8, 16])},
    )
    axis, says = drawing.grid(values, [["a", "b"], ["c", "d"]], signed=True, title="", label="", **sides)
    assert [t.get_text() for t in axis.texts] == ["a", "b", "c", "d"] and "d, at batch 64, width 16" in says
    assert axis.images[0].get_clim() == (-3.0, 3.0)


def test_a_timeline_begins_at_zero_and_numbers_the_longest():
    events = [("Python", "call", 5.0, 5.00001, 0), ("device", "work", 5.00001, 5.00005, 0)]
    events, colors = [*events, ("device", "in it", 5.00002, 5.00003, 1)], dict.fromkeys(("call", "in it"), "#d3d3d3")
    axis, says = drawing.timeline(events, named=2, colors=colors | {"work": "#009e73"})
    assert min(p.get_x() for p in axis.patches) == 0.0 and max(widths(axis)) == pytest.approx(40, rel=1e-3)
    assert " 2  work: up to 40 μs" in says


def test_pictures_are_drawn_one_by_one_and_shown_with_their_sentence(monkeypatch, capsys):
    drawn = drawing.pictures(torch.rand(7, 28, 28), list("abcdefg"), columns=5)
    assert [a.get_title() for a in drawn.axes.figure.axes if a.images] == list("abcdefg") and "7" in drawn.says
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda figure, metadata: shown.append((figure, metadata)))
    drawn.show()
    assert shown == [(drawn.axes.figure, {"image/png": {"alt": drawn.says}})]
    assert not plt.get_fignums() and capsys.readouterr().out == f"{drawn.says}\n"


def test_columns_line_up_and_numbers_have_the_digits_one_reads():
    lines = drawing.columns(["what", "μs"], [("a", 1), ("longer", 123)]).splitlines()
    assert lines == ["what     μs", "------  ---", "a         1", "longer  123"]
    assert [number(x) for x in (0.01234, 12.345, 1234.5)] == ["0.0123", "12.3", "1,234"]
    assert span((0.000234, 0.00456), 1e-6) == "230 to 4,600"
