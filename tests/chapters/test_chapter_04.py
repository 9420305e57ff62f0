"""Chapter 04: what its figures draw and say."""

import torch

from mnist_gpu.chapters import chapter_04 as lab
from mnist_gpu.training import Epoch, Evaluation


def test_curves_are_of_every_batch_and_of_the_test_after_every_epoch():
    history = [Epoch(1, [2.0, 1.0], [], 4, 1.0), Epoch(2, [0.5, 0.25], [], 4, 1.0)]
    left, says = lab.curves(history, [Evaluation(0.9, 0.5), Evaluation(0.4, 0.75)])
    batches, losses = left.lines
    assert list(batches.get_xdata()) == [0.5, 1, 1.5, 2] and list(batches.get_ydata()) == [2, 1, 0.5, 0.25]
    assert list(losses.get_ydata()) == [0.9, 0.4]
    assert list(left.figure.axes[1].lines[0].get_ydata()) == [50, 75]
    assert "0.900" in says and "50.0%" in says and "0.400" in says and "75.0%" in says


def test_the_commonest_mistake_is_said_and_right_answers_are_left_pale():
    matrix = torch.diag(torch.full((10,), 900))
    matrix[9, 4], matrix[4, 9] = 24, 11
    axes, says = lab.confusion(matrix)
    assert "24 times a 9 was taken for a 4" in says
    values = axes.images[0].get_array()
    assert values[9, 9] == 0 and values[9, 4] == 24
    assert sorted({text.get_text() for text in axes.texts}) == ["0", "11", "24", "900"]


def test_weights_before_and_after_are_drawn_on_one_scale_and_the_largest_is_said():
    before, after = torch.zeros(12, 784), torch.zeros(12, 784)
    before[0, 0], after[9, 783], after[11] = -0.25, 1.5, 99.0  # the last is not among the ten
    drawn = lab.weights(before, after)
    assert "was 0.25, and is 1.5" in drawn.says
    pictures = [axis.images[0] for axis in drawn.axes.figure.axes[:20]]
    assert {picture.get_clim() for picture in pictures} == {(-1.5, 1.5)}
    assert pictures[0].get_array()[0, 0] == -0.25 and pictures[19].get_array()[27, 27] == 1.5
