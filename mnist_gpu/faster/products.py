"""The two large products of a step: which library is faster differs by processor."""

import timeit
from collections.abc import Callable

import torch

from mnist_gpu.model import PIXELS
from mnist_gpu.torch_private import onednn_missing, onednn_product

# torch.compile would copy a transposed operand for it first. An operator of our own transposes inside.
NAME = "mnist_gpu::onednn_product"
if not hasattr(torch.ops.mnist_gpu, "onednn_product"):  # or reloading this module would define it twice
    torch.library.define(NAME, "(Tensor a, Tensor b, bool b_transposed=False) -> Tensor")

    @torch.library.impl(NAME, "CPU")
    def _onednn_product(a, b, b_transposed=False):
        return onednn_product(a, b if b_transposed else b.t())

    @torch.library.register_fake(NAME)
    def _shape_of_product(a, b, b_transposed=False):
        return a.new_empty(len(a), b.shape[not b_transposed])


_onednn = torch.ops.mnist_gpu.onednn_product  # `a @ b`, or with b transposed first

# (weights [H, 784], x [B, 784]) -> the hidden layer [H, B], without its bias; (its gradient, x) -> that of the weights.
PRODUCTS = {
    "torch.mm, weights [H, 784]": (lambda w, x: torch.mm(w, x.t()), torch.mm),
    "oneDNN, weights [H, 784]": (lambda w, x: _onednn(w, x, b_transposed=True), _onednn),
}


def usable_products(device: torch.device | str = "cpu") -> list[str]:
    """The names of those that can be computed on `device`: oneDNN is for CPUs."""
    onednn = torch.device(device).type == "cpu" and not onednn_missing()
    return [name for name in PRODUCTS if onednn or not name.startswith("oneDNN")]


def five_products(products: str, batch_size: int = 128, hidden: int = 128, device="cpu") -> Callable[[], None]:
    """All matrix products of one training step and nothing else, on random numbers: the floor under every step."""
    shapes = (batch_size, PIXELS), (hidden, PIXELS), (hidden, batch_size), (10, hidden), (10, batch_size)
    x, weights_1, activations, weights_2, logits = (torch.rand(shape, device=device) for shape in shapes)
    to_hidden, gradient = PRODUCTS[products]

    def five():
        to_hidden(weights_1, x)
        torch.mm(weights_2, activations)
        torch.mm(logits, activations.t())
        torch.mm(weights_2.t(), logits)
        gradient(activations, x)

    return five


def fastest_products(hidden: int = 128) -> str:
    """The fastest on this CPU with the threads that are set, by a measurement of a third of a second."""
    sides = {p: five_products(p, hidden=hidden) for p in usable_products()}
    # In turn, and the least of each: warming up, and what another program takes meanwhile, only add to a time.
    times = [(timeit.timeit(five, number=20), p) for _ in range(8) for p, five in sides.items()]
    return min(times)[1]
