"""Copies and steps in one stream and in two: predicted for a card, and as a GPU's events saw it."""

import itertools

import pytest
import torch

from mnist_gpu.measuring import streams
from mnist_gpu.measuring.card import card_numbers, predict_graph
from mnist_gpu.measuring.published import published
from mnist_gpu.measuring.streams import ONE, TWO, overlap, predicted_overlap, saved, streams_missing


def rows(events):
    found = {}
    for row, name, begin, end, depth in events:
        assert depth == 0 and begin < end
        found.setdefault(row, []).append((name, begin, end))
    return found


def test_the_prediction_is_made_of_published_rates():
    found = rows(predicted_overlap("A100", steps=3, batch_size=64))
    rate = published(card="A100", quantity="pinned transfer")[0].value
    (_, begin, end), (_, _, step_end) = found[ONE][:2]
    assert end - begin == pytest.approx(64 * (784 * 4 + 8) / rate)
    assert step_end - end == pytest.approx(predict_graph(card_numbers("A100"), 64).middle)
    assert [name for name, *_ in found[ONE]] == ["copy", "step"] * 3


@pytest.mark.parametrize("batch_size", [8, 128, 65_536])  # a step is longer than a copy, or a copy than a step
def test_a_step_waits_for_its_copy_and_the_one_before_and_a_copy_for_the_copy_before_alone(batch_size):
    found = rows(predicted_overlap("H100", steps=4, batch_size=batch_size))
    copies, steps = found[f"{TWO}: copies"], found[f"{TWO}: steps"]
    assert copies[0][1] == 0 and all(a[2] == b[1] for a, b in itertools.pairwise(copies))
    for i, (_, begin, _) in enumerate(steps):
        assert begin == max(copies[i][2], steps[i - 1][2] if i else 0.0)
    assert all(a[2] == b[1] for a, b in zip(found[ONE], found[ONE][1:], strict=False))


def test_at_best_the_shorter_disappears():
    events = predicted_overlap("A100", steps=50)
    one, two = saved(events)
    (_, _, copy), (_, begin, end) = rows(events)[ONE][:2]
    step = end - begin
    assert one == pytest.approx(50 * (copy + step))
    assert two == pytest.approx(min(copy, step) + 50 * max(copy, step))


def test_a_card_of_which_nothing_is_published_is_refused():
    with pytest.raises(ValueError, match="how fast T4 is reached is published of none but A100, H100"):
        predicted_overlap("T4")
    with pytest.raises(ValueError, match="nothing is published here of 'M9'"):
        predicted_overlap("M9")
    with pytest.raises(ValueError, match="steps is 0"):
        predicted_overlap("A100", steps=0)


def test_a_cpu_has_no_streams_to_watch():
    cpu = torch.device("cpu")
    assert streams_missing(cpu) and streams_missing(torch.device("mps"))
    with pytest.raises(ValueError, match="a timeline of streams needs a GPU"):
        overlap(cpu)


@pytest.mark.cuda
def test_a_gpus_events_are_in_order_and_each_batch_is_there_before_its_step(gpu):
    found = rows(overlap(gpu, steps=5, batch_size=1024))
    assert [name for name, *_ in found[ONE]] == ["copy", "step"] * 5
    copies, steps = found[f"{TWO}: copies"], found[f"{TWO}: steps"]
    assert len(copies) == len(steps) == 5
    tolerance = 2e-6  # of the events' clock
    assert all(copy[2] <= step[1] + tolerance for copy, step in zip(copies, steps, strict=True))
    for row in found.values():
        assert all(a[2] <= b[1] + tolerance for a, b in itertools.pairwise(row))
    assert streams.saved(overlap(gpu))[1] > 0
