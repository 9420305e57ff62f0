import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mnist_gpu.faster import products
from mnist_gpu.faster.products import (
    PRODUCTS,
    fastest_products,
    five_products,
    onednn_missing,
    onednn_product,
    usable_products,
)
from mnist_gpu.model import step_flops

needs_onednn = pytest.mark.skipif(bool(onednn_missing()), reason=str(onednn_missing()))
HERE = [p.name for p in usable_products()]


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize(("batch_size", "hidden"), [(128, 128), (3, 17), (96, 1)])
def test_both_products_are_those_of_float64_in_the_layout_that_they_name(name, batch_size, hidden):
    generator = torch.Generator().manual_seed(0)
    x, weights, gradient = (
        torch.rand(*shape, generator=generator) for shape in ((batch_size, 784), (hidden, 784), (hidden, batch_size))
    )
    expected = weights.double() @ x.t().double(), gradient.double() @ x.double()
    p = PRODUCTS[name]
    if p.features_first:
        found = p.hidden(weights, x), p.gradient(gradient, x)
    else:
        found = p.hidden(weights.t().contiguous(), x).t(), p.gradient(gradient.t().contiguous(), x).t()
    assert p.features_first == ("weights [H, 784]" in name)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape and torch.allclose(ours.double(), theirs, rtol=1e-5)


@needs_onednn
@pytest.mark.parametrize("transposed", [False, True])
def test_onednns_product_is_that_of_torch(transposed):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(3, 5, generator=generator), torch.rand(7, 5, generator=generator)
    if transposed:  # the same numbers, lying in memory the other way round
        a, b = a.t().contiguous().t(), b.t().contiguous().t()
    found = onednn_product(a, b)
    assert found.shape == (3, 7) and torch.allclose(found, a @ b.t(), atol=1e-6)


@needs_onednn
@pytest.mark.parametrize("a_transposed", [False, True])
@pytest.mark.parametrize("b_transposed", [False, True])
def test_the_operator_for_the_compiler_says_the_shape_and_keeps_to_the_rules(a_transposed, b_transposed):
    a, b = (
        torch.rand(5, 3) if a_transposed else torch.rand(3, 5),
        torch.rand(7, 5) if b_transposed else torch.rand(5, 7),
    )
    operator = torch.ops.mnist_gpu.onednn_product.default
    torch.library.opcheck(operator, (a, b, a_transposed, b_transposed), test_utils=("test_schema", "test_faketensor"))
    expected = (a.t() if a_transposed else a) @ (b.t() if b_transposed else b)
    assert torch.allclose(operator(a, b, a_transposed, b_transposed), expected, atol=1e-6)


def test_where_there_is_no_onednn_its_products_are_not_usable(monkeypatch):
    monkeypatch.setattr(products, "onednn_missing", lambda: "there is none")
    plain = [name for name in PRODUCTS if name.startswith("torch.mm")]
    assert [p.name for p in usable_products()] == plain and len(plain) == 2
    monkeypatch.setattr(products, "onednn_missing", lambda: None)
    assert [p.name for p in usable_products()] == list(PRODUCTS)
    assert [p.name for p in usable_products("cuda")] == plain


def test_onednn_is_missing_where_its_operator_or_the_library_is(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert onednn_missing() == "this build of PyTorch has no oneDNN"
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert onednn_missing() == "this build of PyTorch has no oneDNN"


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize(("batch_size", "hidden"), [(128, 128), (3, 17)])
def test_the_floor_is_exactly_the_matrix_products_of_a_step(monkeypatch, name, batch_size, hidden):
    by_onednn = []
    monkeypatch.setattr(products, "onednn_product", lambda a, b: by_onednn.append((a, b)) or torch.mm(a, b.t()))
    five = five_products(PRODUCTS[name], batch_size, hidden)
    with FlopCounterMode(display=False) as counter:
        five()
    # By oneDNN the two large ones: the hidden layer's outputs, and the gradient of its weights.
    flops = [2 * a.shape[0] * a.shape[1] * b.shape[0] for a, b in by_onednn]
    assert flops == ([2 * batch_size * 784 * hidden] * 2 if name.startswith("oneDNN") else [])
    assert counter.get_total_flops() + sum(flops) == sum(step_flops(batch_size, hidden))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("fast", HERE)
def test_the_fastest_is_the_one_that_takes_least_even_if_disturbed(monkeypatch, fast):
    clock, calls = Clock(), []

    def pretend(p, hidden):
        def five():
            calls.append(p.name)
            clock.now += (1.0 if p.name == fast else 1.1) + 50 * (calls.count(p.name) % 4 == 1)  # every other time

        return five

    monkeypatch.setattr(products, "five_products", pretend)
    monkeypatch.setattr(products.time, "perf_counter", clock)
    assert fastest_products(17, rounds=4, calls=2).name == fast
    assert calls == [name for _ in range(1 + 4) for name in HERE for _ in range(2)]  # in turn, after a warm-up


def test_the_fastest_is_found_by_running_them():
    assert fastest_products(8, rounds=2, calls=2).name in HERE
