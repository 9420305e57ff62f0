"""Chapter 02's room: a step under two ceilings, and what deeper networks are compared with."""

import torch

from mnist_gpu.chapters import chapter_02 as lab
from mnist_gpu.measuring.prediction import MEASURED, SHEET, Figure, Source


def test_the_ceilings_of_a_step_on_published_cards_are_work_over_rate(monkeypatch):
    def figure(card, quantity, value, kind):
        return Figure(card, quantity, value, kind, Source(f"Of {card}, {kind}", "https://example.org", "2026-01-31"))

    rates = [figure("A", "float32", 2e12, SHEET), figure("A", "memory", 1e12, SHEET)]
    rates += [figure("A", "float32", 1e12, MEASURED)]  # nobody measured A's copy, so this is not used
    rates += [figure("B", "float32", 4e12, MEASURED), figure("B", "copy", 2e12, MEASURED)]

    def chosen(card, quantity, kind):
        return [f for f in rates if (f.card, f.quantity, f.kind) == (card, quantity, kind)]

    monkeypatch.setattr(lab, "published", chosen)
    text = lab.published_ceilings(["A", "B"], 4e6, 1e6)
    rows = [line.split() for line in text.splitlines() if line.startswith("published: ")]
    assert [row[1:] for row in rows] == [["A", *SHEET.split(), "2.0", "1.0"], ["B", *MEASURED.split(), "1.0", "0.5"]]
    assert f"Of A, {SHEET}" in text and f"Of B, {MEASURED}" in text and f"Of A, {MEASURED}" not in text


def test_what_two_ceilings_leave_of_a_step_is_said():
    said = lab.shares(5e-6, 2e-6, 10e-6, torch.device("cpu"))
    assert "50% of the step and memory 20%" in said and "30% for something else" in said
    assert "something else" not in lab.shares(5e-6, 6e-6, 10e-6, torch.device("cpu"))


def test_weights_are_drawn_before_and_after_on_one_scale():
    before, after = torch.rand(4, 784) / 10, -torch.rand(4, 784)
    after[1, 5] = -1.25
    axes, says = lab.weights(before, after, count=3)
    drawn = [axis.images[0] for axis in axes.figure.axes if axis.images]
    assert len(drawn) == 6 and {picture.get_clim() for picture in drawn} == {(-1.25, 1.25)} and "1.25 after" in says
    assert drawn[4].get_array()[0, 5] == -1.25  # of the second unit, after
