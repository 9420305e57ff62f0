"""Chapter 02's checks take right answers in several styles, and leave PyTorch's default device as it was."""

import torch
from torch import nn
from wrong_answers_02 import Deep, gradients, trained

from mnist_gpu.chapters.chapter_02 import EXERCISES
from mnist_gpu.measuring.exercises import RIGHT, judge


def by_default(images, labels, device):
    torch.set_default_device(device)
    return trained(images.to(device), labels.to(device), device, gives=lambda loss: loss)


def test_right_answers_in_other_styles_are_right():
    styles = (
        lambda widths, mean: Deep(widths, mean, layers=lambda layers: nn.Sequential(*layers)),
        by_default,
        lambda *given: [gradient.numpy() for gradient in gradients(*given)],
    )
    for exercise, answer in zip(EXERCISES, styles, strict=True):
        assert judge(exercise, answer).status == RIGHT
    assert torch.rand(1).device.type == "cpu"
