"""What fills the memory: the formula against what is counted, and the two remedies."""

import gc
import random

import pytest
import torch
import torch.nn.functional as F

from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring.memory import Deep, LiveBytes, accumulate, counted, derived, price, saved_bytes
from mnist_gpu.model import make_model, parameter_count, step_flops
from mnist_gpu.training import make_step


def a_batch(n, device="cpu"):
    generator = torch.Generator().manual_seed(n)
    images, labels = torch.rand(n, 1, 28, 28, generator=generator), torch.randint(10, (n,), generator=generator)
    return images.to(device), labels.to(device)


def test_the_formula_is_what_autograd_keeps_to_the_byte_whatever_the_sizes():
    random.seed(0)
    for batch, hidden in [(1, 1), (128, 128), *((random.randint(1, 300), random.randint(1, 300)) for _ in range(10))]:
        held = derived(batch, hidden)
        assert counted(make_model(hidden), *a_batch(batch)) == held.activations
        assert held.weights == held.gradients == held.momentum == 4 * parameter_count(hidden)


def test_weights_gradients_and_momentum_are_what_the_optimizer_holds():
    model = make_model(37)
    optimizer = sgd(model)
    images, labels = a_batch(5)
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
    held = derived(5, 37)
    assert sum(p.nbytes for p in model.parameters()) == held.weights
    assert sum(p.grad.nbytes for p in model.parameters()) == held.gradients
    assert sum(s["momentum_buffer"].nbytes for s in optimizer.state.values()) == held.momentum


def test_a_storage_is_counted_once_and_what_is_known_not_at_all():
    x, y = torch.rand(100, requires_grad=True), torch.rand(100, requires_grad=True)

    def forward():
        z = x * y  # keeps x and y
        return (z * z).sum()  # keeps z, twice

    assert saved_bytes(forward, []) == 3 * 400
    assert saved_bytes(forward, [x]) == 2 * 400
    assert saved_bytes(forward, [x, y.view(10, 10)]) == 400


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"hidden": -1}])
def test_sizes_below_one_are_refused(wrong):
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        derived(**wrong)


def test_live_bytes_are_those_of_the_tensors_that_are_there():
    with LiveBytes() as live:
        a = torch.zeros(1000)
        b = a.view(10, 100) + 1
        assert live.now == 8000
        c = b.t()  # no new storage
        del b
        assert live.now == 8000
        del c
        assert live.now == 4000
        a.add_(1)
        d = torch.zeros(500)
    assert (live.now, live.peak) == (6000, 8000)
    del a
    assert live.now == 2000 and len(d) == 500
    names = [name for name, _ in live.history]
    assert names[:3] == ["zeros", "view", "add"] and [size for _, size in live.history][:3] == [4000, 4000, 8000]


def test_a_step_makes_its_gradients_and_at_most_its_activations_beside_them():
    model, batch = make_model(64), a_batch(500)
    step = make_step(model, sgd(model))
    step(*batch)
    with LiveBytes() as live:
        loss = step(*batch)
    held = derived(500, 64)
    assert live.now == held.gradients + loss.nbytes  # zero_grad() comes at the beginning of the next step
    assert held.activations < live.peak
    # Beside them there may be one gradient of the activations, and one of the logits, on the way down.
    assert live.peak <= held.activations + held.gradients + 4 * 500 * (64 + 2 * 10)


def test_a_batch_in_parts_has_the_gradient_of_the_whole():
    model, (images, labels) = make_model(16).double(), a_batch(50)
    model.zero_grad()
    F.cross_entropy(model(images.double()), labels).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    for parts in (1, 2, 7, 50):  # 7: parts of 8, and one of 2
        model.zero_grad()
        accumulate(model, images.double(), labels, parts)
        for p, e in zip(model.parameters(), expected, strict=True):
            assert (p.grad - e).abs().max() < 1e-14


@pytest.mark.parametrize("parts", [0, 51, 1.5])
def test_parts_that_cannot_be_are_refused(parts):
    with pytest.raises(ValueError, match="parts is"):
        accumulate(make_model(4), *a_batch(50), parts)


def test_accumulation_takes_fewer_bytes_more_launches_and_the_same_operations():
    model, batch = make_model(64), a_batch(2048)
    whole, parts = price(model, *batch), price(model, *batch, parts=4)
    assert whole.operations == sum(step_flops(2048, 64)) == parts.operations
    assert parts.kept == derived(512, 64).activations < whole.kept == derived(2048, 64).activations
    assert parts.peak < whole.peak and parts.launched > 3 * whole.launched
    assert (whole.gradient - parts.gradient).abs().max() < 1e-6


def test_checkpointing_keeps_less_computes_more_and_gives_the_same_gradient():
    def of(segments):
        torch.manual_seed(0)
        return price(Deep(16, 32, segments), *a_batch(512))

    whole, four, sixteen = of(1), of(4), of(16)
    layer = 4 * 512 * 32  # bytes of the activations of one hidden layer
    forward = 2 * 512 * (784 * 32 + 16 * 32 * 32 + 32 * 10)
    assert whole.kept - four.kept == 9 * layer  # of each of the first three pieces, three of four layers
    assert whole.operations == 3 * forward - 2 * 512 * 784 * 32  # no gradient for the images
    assert four.operations - whole.operations == 12 * 2 * 512 * 32 * 32  # twelve layers again
    assert sixteen.operations > four.operations and sixteen.kept == whole.kept
    assert four.peak < whole.peak and four.peak < sixteen.peak
    assert torch.equal(four.gradient, whole.gradient)


def test_counting_leaves_nothing_behind():
    model = make_model(8)
    price(model, *a_batch(20))
    assert all(p.grad is None for p in model.parameters())
    gc.collect()


@pytest.mark.gpu
def test_a_gpu_keeps_what_the_formula_says(gpu):
    assert counted(make_model(37, device=gpu), *a_batch(100, gpu)) == derived(100, 37).activations


@pytest.mark.cuda
def test_the_allocators_peak_is_not_below_what_is_counted(gpu):
    model, batch = make_model(512, device=gpu), a_batch(4096, gpu)
    step = make_step(model, sgd(model))
    step(*batch)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with LiveBytes() as live:
        step(*batch)
    torch.cuda.synchronize()
    most = torch.cuda.max_memory_allocated() - before
    assert live.peak <= most <= torch.cuda.memory_reserved()
    assert most < 1.2 * live.peak + 32 * 2**20  # it rounds up, and products take some work space
