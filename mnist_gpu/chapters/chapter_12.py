"""Chapter 12: what a step's launches take, other libraries, and the checks of its exercises."""

import copy
import random
from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn

from mnist_gpu.data import DeviceBatches, load_mnist
from mnist_gpu.faster.compiled_epoch import CompiledEpoch
from mnist_gpu.faster.ladder import rungs
from mnist_gpu.measuring.climb import extra, known
from mnist_gpu.measuring.drawing import columns
from mnist_gpu.measuring.exercises import MEND, WRITE, Exercise, Wrong, checker, compared, gradient, in_time, networks
from mnist_gpu.measuring.results import Timed, compare_in_turn, recorded
from mnist_gpu.measuring.timing import measure
from mnist_gpu.training import make_step


def products_of(rung: Timed) -> str:
    """The library that a rung of the CPU multiplies with: a name of PRODUCTS."""
    return rung.proof.get("products", ("oneDNN" if "oneDNN" in rung.name else "torch.mm") + ", weights [H, 784]")


def launches(rung: Timed) -> float:
    """Seconds of a rung's step on the CPU with one image a batch and one hidden unit: nearly all of it launches."""
    few = DeviceBatches(*(t[:64] for t in load_mnist(train=True)), batch_size=1)
    model, step, batches = rungs([rung.name])[0].make(torch.device("cpu"), 1)
    if isinstance(batches, CompiledEpoch):  # it is compiled with its batches
        few = CompiledEpoch(model, few, products=products_of(rung))
        step = few.step
    return measure(lambda: [step(*batch) for batch in few]).median / len(few)


def libraries(by: str = "s per epoch") -> None:
    """Prints what benchmarks/peers has recorded of other libraries, a table a machine, in the order of a column."""
    head = ["training", "s per epoch", "speed", "first use", "test loss", "lines"]
    for results in recorded():
        rows, measured = [], results.select("peers")
        pairs = compare_in_turn(measured, [("plain loop", m.name) for m in measured])
        speeds = {c.names[1]: f"{c.times}x" for c in pairs if c.differs}
        for m in measured:
            name = ": ".join([m.name, *filter(None, [m.proof.get("rung")])])
            loss, lines = f"{m.proof['test_loss']:.3f}", m.proof["lines_of_code"]
            rows.append((name, known(m.seconds)[0], speeds.get(m.name, "-"), extra(m), loss, lines))
        if rows:
            rows.sort(key=lambda row: float(f"{row[head.index(by)]}".split()[0].replace("-", "0")))
            print(results.whose(measured[0]), columns(head, rows), sep="\n")


def by_hand(answer: Callable, *given: torch.Tensor) -> torch.Tensor:
    """What the answer gives without autograd, which torch.func.grad calls as well."""
    refused = {"side_effect": Wrong("By hand, please: autograd is switched off here.")}
    with patch("torch.autograd.grad", **refused), patch("torch.Tensor.backward", **refused):
        return torch.as_tensor(answer(*given))


def program(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, momentum: float = 0.9) -> Callable:
    """A training: called with a precision, it gives the losses of its steps."""

    def losses(dtype: torch.dtype) -> torch.Tensor:
        network = copy.deepcopy(model).to(dtype).requires_grad_()
        step = make_step(network, torch.optim.SGD(network.parameters(), lr=0.02, momentum=momentum))
        return torch.stack([step(*batch) for batch in zip(images.to(dtype), labels, strict=True)])

    return losses


def apart(one: Callable, other: Callable, dtype: torch.dtype) -> float:
    """The largest difference of two trainings' losses."""
    return float((one(dtype) - other(dtype)).abs().max())


def pairs() -> Iterator[tuple[Callable, Callable]]:
    """Two orders of one training, which rounding parts at a ReLU; and a training with a fault that shows less."""
    for _ in range(3):
        flips = False
        while not flips:
            batch, pixels, hidden = random.randrange(3, 9), random.randrange(150, 250), random.randrange(5, 12)
            images, labels = 3 * torch.randn(12, batch, pixels), torch.randint(3, (12, batch))
            model = nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 3)).requires_grad_(False)
            model[0].bias[0] -= model[0](images[0])[0, 0]
            turned = copy.deepcopy(model)
            turned[0].weight.copy_(model[0].weight.flip(1))  # adds up the pixels from the last one
            flips = (model[:2](images[0])[0, 0] > 0) != (turned[:2](images[0].flip(1))[0, 0] > 0)
        one, other = program(model, images, labels), program(turned, images.flip(2), labels)
        yield from ((one, other), (other, program(model, images, labels, momentum=0.8999)))


bias_gradient = partial(gradient, 1, activation=F.silu)
EXERCISES = (
    Exercise("12.1", WRITE, "Back through another activation", compared(
        bias_gradient, networks, run=partial(in_time, by_hand),
        given=lambda x, labels, w1, *_: f"In float64, with x {list(x.shape)} and w1 {list(w1.shape)}", hints=(
            (partial(bias_gradient, times=len), "That is of the images' sum, but the loss is their mean."),
            (partial(bias_gradient, slope=F.relu), "That is the slope of a ReLU, which SiLU only resembles."),
            (partial(bias_gradient, slope=torch.sigmoid), "That is the sigmoid's slope: SiLU is z times a sigmoid."),
            (partial(bias_gradient, slope=lambda z: z * z.sigmoid().detach()), "The sigmoid changes with z as well."),
    ))),
    Exercise("12.2", MEND, "Rounding or a fault?", compared(
        lambda *two: apart(*two, torch.float64) < 1e-9, pairs,
        run=lambda answer, *two: None if (found := in_time(answer, *two)) is None else bool(found),
        given=lambda *two: "Losses that differ by up to {:.0e} in float32 and by {:.0e} in float64".format(
            *(apart(*two, dtype) for dtype in (torch.float32, torch.float64))),
    )),
)  # fmt: skip
check = checker(EXERCISES)
