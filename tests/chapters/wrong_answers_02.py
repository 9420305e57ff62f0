"""Wrong answers to chapter 02's exercises, each with a part of the hint that it gets: right ones but for an option."""

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from wrong import WrongAnswers

wrong = WrongAnswers()


class Deep(nn.Module):
    def __init__(self, widths, mean, layers=nn.ModuleList, keep=nn.Module.register_buffer, of=lambda m, x: m.mean):
        super().__init__()
        keep(self, "mean", mean)
        self.layers, self.of = layers(nn.Linear(m, n) for m, n in pairwise(widths)), of

    def forward(self, images):
        x = images.flatten(1) - self.of(self, images)
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


wrong.value("02.1", "Layers in a plain list are hidden", partial(Deep, layers=list))
wrong.value("02.1", "are hidden", lambda *given: Deep(*given).requires_grad_(False))
wrong.value("02.1", "is a buffer", partial(Deep, keep=lambda deep, at, mean: setattr(deep, at, nn.Parameter(mean))))
wrong.value("02.1", "would lack the mean", partial(Deep, keep=setattr, of=lambda m, x: m.mean.to(x.device)))
wrong.value("02.1", "would lack the mean", partial(Deep, keep=partial(nn.Module.register_buffer, persistent=False)))
wrong.value("02.1", "on device cpu", lambda widths, mean: Deep(widths, mean, of=lambda m, x: mean))
wrong.value("02.1", "other logits", partial(Deep, of=lambda m, x: 0))


def trained(images, labels, device, *, model=None, x=None, y=None, noise=None, lr=0.1, gives=torch.detach):
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).to(model or device)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    for some, digits in zip(images.split(64), labels.split(64), strict=True):
        some, digits = some.to(x or device), digits.to(y or device)
        made = 0.1 * torch.randn(some.shape, device="cpu" if noise else device)
        loss = F.cross_entropy(network(some + (made.to(device) if noise == "copied" else made)), digits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network, gives(loss)


wrong.value("02.2", "leaves the model", lambda images, labels, device: trained(images, labels, "cpu"))
for options in ({"model": "cpu"}, {"x": "cpu"}, {"y": "cpu"}, {"noise": "cpu"}):
    wrong.value("02.2", "expected device", partial(trained, **options))
wrong.value("02.2", "noise made on the CPU", partial(trained, noise="copied"))
wrong.value("02.2", "before it was", partial(trained, lr=0.05))
wrong.value("02.2", "meta tensors", partial(trained, gives=torch.Tensor.item))


def gradients(x, labels, w1, b1, w2, b2, *, mean=1, biases=1, relu=True):
    z = x @ w1.T + b1
    h = z.clamp(min=0)
    g_logits = ((h @ w2.T + b2).softmax(1) - F.one_hot(labels, len(b2))) / len(x) ** mean
    g_z = g_logits @ w2 * (z > 0 if relu else 1)
    return g_z.T @ x, g_z.sum(0) / biases, g_logits.T @ h, g_logits.sum(0) / biases


wrong.value("02.3", "their mean is wanted", partial(gradients, mean=0, relu=False))
wrong.value("02.3", "It is averaged twice", lambda *given: gradients(*given, biases=len(given[0]), relu=False))
wrong.value("02.3", "back through the ReLU everywhere", partial(gradients, relu=False))
