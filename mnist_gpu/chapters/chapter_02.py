"""Chapter 02's exercises: what moves with a network, a program for any device, and a backward pass by hand."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from mnist_gpu.measuring.exercises import MEND, Exercise, Wrong, checker, compared, gradient, in_time, networks, same
from mnist_gpu.measuring.operations import Operations
from mnist_gpu.training import make_step


def moves(build: Callable) -> str:
    """Of 02.1: an optimizer finds the layers; `.to` and a checkpoint find the mean as well."""
    for widths in ((5, 3, 2), (4, 6), (17, 8, 30, 7, 2)):
        mean, images = torch.rand(widths[0]), torch.rand(7, widths[0])
        network, x = build(widths, mean), images - mean
        found = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if len(found) != (right := 2 * len(widths) - 2) or len(list(network.parameters())) > right:
            said = "The mean is a buffer." if found else "Layers in a plain list are hidden."
            raise Wrong(f"An optimizer finds {len(found)} tensors to train, and the layers have {right}. {said}")
        if not any(torch.equal(tensor.flatten(), mean) for tensor in network.state_dict().values()):
            raise Wrong("A checkpoint would lack the mean: it is not in the state_dict. register_buffer puts it there.")
        weights, biases = ([parameter for parameter in found if parameter.dim() == d] for d in (2, 1))
        for i, layer in enumerate(zip(weights, biases, strict=True)):
            x = F.linear(x.relu() if i else x, *layer)
        if not same(network(images), x):
            raise Wrong(f"With widths {widths} it gives other logits than before.")
        network.to("meta")(images.to("meta"))  # raises an error where something stays behind
    return "All of it moves and is saved, and only the layers are trained."


def ported(program: Callable) -> str:
    """Of 02.2: on "meta" everything lies there, and little is copied; on the CPU it trains as before."""
    images, labels = torch.rand(187, 1, 28, 28), torch.randint(10, (187,))
    for device in ("meta", "cpu"):
        torch.default_generator.manual_seed(0)
        with Operations() as operations:
            model, loss = program(images, labels, torch.device(device))
        if {tensor.device.type for tensor in (*model.parameters(), loss)} != {device}:
            raise Wrong(f"Asked for {device}, it leaves the model, or the loss, on another device.")
        if sum(o.name == "_to_copy" for o in operations.seen) > 8:  # two parameters, three times images and labels
            raise Wrong("More is copied than the model, images and labels: is the noise made on the CPU?")
    torch.default_generator.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    step = make_step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    losses = [step(x + 0.1 * torch.randn(x.shape), y) for x, y in zip(images.split(64), labels.split(64), strict=True)]
    if not same(loss.detach(), losses[-1]):
        raise Wrong(f"On the CPU its last loss is {loss:.4f}; before it was {losses[-1]:.4f}.")
    return "It runs on meta and on the CPU, so it would on a GPU."


EXERCISES = (
    Exercise("02.1", MEND, "A network that moves as a whole", partial(in_time, moves)),
    Exercise("02.2", MEND, "A program for any device", partial(in_time, ported)),
    Exercise("02.3", MEND, "A backward pass by hand", compared(
        # From the logits back, so that mistakes show one at a time.
        gradient, lambda: ((at, *given) for given in networks() for at in (2, 3, 0, 1)),
        run=lambda answer, at, *tensors: torch.as_tensor(in_time(answer, *tensors)[at]),
        given=lambda at, x, labels, w1, *_: f"Of {('w1', 'b1', 'w2', 'b2')[at]}, with x {list(x.shape)}", hints=(
            (partial(gradient, times=len), "That is of the sum of the images' losses, but their mean is wanted."),
            (partial(gradient, times=lambda x: 1 / len(x)), "It is averaged twice: g_logits holds the mean already."),
            (partial(gradient, slope=lambda z: z), "It comes back through the ReLU everywhere, not only where z > 0."),
    ))),
)  # fmt: skip
check = checker(EXERCISES)
