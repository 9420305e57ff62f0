import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mnist_gpu.faster import products
from mnist_gpu.faster.products import PRODUCTS, fastest_products, five_products, usable_products
from mnist_gpu.model import step_flops
from mnist_gpu.torch_private import onednn_missing

HERE = [p.name for p in usable_products()]


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize(("batch_size", "hidden"), [(128, 128), (3, 17), (96, 1)])
def test_both_products_are_those_of_float64_in_the_layout_that_they_name(name, batch_size, hidden):
    x, weights, gradient = (torch.rand(shape) for shape in ((batch_size, 784), (hidden, 784), (hidden, batch_size)))
    expected = weights.double() @ x.t().double(), gradient.double() @ x.double()
    p = PRODUCTS[name]
    if p.features_first:
        found = p.hidden(weights, x), p.gradient(gradient, x)
    else:
        found = p.hidden(weights.t().contiguous(), x).t(), p.gradient(gradient.t().contiguous(), x).t()
    assert p.features_first == ("weights [H, 784]" in name)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape and torch.allclose(ours.double(), theirs, rtol=1e-5)


def test_where_there_is_no_onednn_its_products_are_not_usable(monkeypatch):
    plain = [name for name in PRODUCTS if name.startswith("torch.mm")]
    monkeypatch.setattr(products, "onednn_missing", lambda: None)
    assert [p.name for p in usable_products()] == list(PRODUCTS)
    assert [p.name for p in usable_products("cuda")] == plain and len(plain) == 2
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert "no oneDNN" in onednn_missing() and [p.name for p in usable_products()] == plain
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops, "mkldnn", object())  # the library, without its operator
    assert "no oneDNN" in onednn_missing()


@pytest.mark.parametrize("name", HERE)
def test_the_floor_is_exactly_the_matrix_products_of_a_step(monkeypatch, name):
    by_onednn = []
    monkeypatch.setattr(products, "onednn_product", lambda a, b: by_onednn.append((a, b)) or torch.mm(a, b.t()))
    five = five_products(PRODUCTS[name], 3, 17)
    with FlopCounterMode(display=False) as counter:
        five()
    # By oneDNN the two large ones: the hidden layer's outputs, and the gradient of its weights.
    flops = [2 * a.shape[0] * a.shape[1] * b.shape[0] for a, b in by_onednn]
    assert flops == ([2 * 3 * 784 * 17] * 2 if name.startswith("oneDNN") else [])
    assert counter.get_total_flops() + sum(flops) == sum(step_flops(3, 17))


@pytest.mark.parametrize("fast", HERE)
def test_the_fastest_is_the_one_that_takes_least_even_if_disturbed(monkeypatch, fast):
    asked = []

    def timeit(p, number):
        asked.append(p.name)
        return (1.0 if p.name == fast else 1.1) + 50 * (asked.count(p.name) % 2)  # every other time

    monkeypatch.setattr(products, "five_products", lambda p, hidden: p)
    monkeypatch.setattr(products.timeit, "timeit", timeit)
    assert fastest_products(17).name == fast
    assert asked == HERE * 8  # in turn
