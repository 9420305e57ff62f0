import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mnist_gpu.faster import products
from mnist_gpu.faster.products import PRODUCTS, fastest_products, five_products, usable_products
from mnist_gpu.measuring.operations import step_flops
from mnist_gpu.torch_private import onednn_missing

HERE = usable_products()


def test_where_there_is_no_onednn_its_products_are_not_usable(monkeypatch):
    plain = [name for name in PRODUCTS if name.startswith("torch.mm")]
    with monkeypatch.context() as there:
        there.setattr(products, "onednn_missing", lambda: None)
        assert usable_products() == list(PRODUCTS) and usable_products("cuda") == plain
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops, "mkldnn", object())  # the library, without its operator
    assert "no oneDNN" in onednn_missing() and usable_products() == plain
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert "no oneDNN" in onednn_missing()


@pytest.mark.parametrize("name", HERE)
def test_the_floor_is_exactly_the_matrix_products_of_a_step(monkeypatch, name):
    by_onednn = []
    monkeypatch.setattr(products, "onednn_product", lambda a, b: by_onednn.append((a, b)) or torch.mm(a, b.t()))
    five = five_products(name, 3, 17)
    with FlopCounterMode(display=False) as counter:
        five()
    # By oneDNN the two large ones: the hidden layer's outputs, and the gradient of its weights.
    flops = [2 * a.shape[0] * a.shape[1] * b.shape[0] for a, b in by_onednn]
    assert flops == ([2 * 3 * 784 * 17] * 2 if name.startswith("oneDNN") else [])
    assert counter.get_total_flops() + sum(flops) == sum(step_flops(3, 17))


@pytest.mark.parametrize("fast", HERE)
def test_the_fastest_is_the_one_that_takes_least_even_if_disturbed(monkeypatch, fast):
    asked, late = [], itertools.cycle([50.0] * len(HERE) + [0.0] * len(HERE))  # every other round
    seconds = lambda p, number: asked.append(p) or (1.0 if p == fast else 1.1) + next(late)  # noqa: E731
    monkeypatch.setattr(products, "five_products", lambda p, hidden: p)
    monkeypatch.setattr(products.timeit, "timeit", seconds)
    assert fastest_products(17) == fast and asked == HERE * 8  # in turn
