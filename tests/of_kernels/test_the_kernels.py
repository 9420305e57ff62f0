"""Every kernel against PyTorch: interpreted or compiled, as chapters/test_chapter_10.py starts the process."""

import math

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_same_losses

from mnist_gpu.data import DeviceBatches, normalize
from mnist_gpu.faster import graphs, kernels, ladder
from mnist_gpu.faster.with_triton import kernel_device
from mnist_gpu.measuring.workloads import train_part
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

WHERE = kernel_device()
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}  # float32, summed in another order


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def guarded():
    """Makes tensors of zeros, and sees afterwards that what lies around each is as it was."""
    made = []

    def make(*shape):
        memory, size = torch.full((math.prod(shape) + 8192,), 7.0, device=WHERE), math.prod(shape)
        made.append((memory, size))
        return memory[4096 : 4096 + size].view(shape).zero_()

    yield make
    assert made
    for memory, size in made:
        assert (memory[:4096] == 7).all() and (memory[4096 + size :] == 7).all()


def rand(*shape):
    return torch.randn(*shape, device=WHERE)


@pytest.mark.parametrize("n", [1, 64, 65, 1000])
def test_the_update_changes_its_elements_and_no_other(guarded, n):
    parameter = torch.nn.Parameter(rand(n))
    w, v = guarded(n).copy_(parameter.detach()), guarded(n)
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    for _ in range(3):
        parameter.grad = rand(n)
        kernels.sgd(w, v, parameter.grad, 0.1, 0.9, block=64)
        optimizer.step()
    torch.testing.assert_close(w, parameter.detach(), **TOLERANCE)


@pytest.mark.parametrize("n", [1, 3, 96])
def test_gathered_images_have_the_same_bits_as_normalized_ones(n):
    images = torch.randint(0, 256, (50, 28, 28), dtype=torch.uint8, device=WHERE)
    images[0].view(-1)[:256] = torch.arange(256, device=WHERE)  # every value there is
    index = torch.randint(0, 50, (n,), device=WHERE)
    index[0] = 0
    found = kernels.gather_normalize(images, index)
    assert found.shape == (n, 1, 28, 28) and torch.equal(found, normalize(images[index]))


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (16, 16, 16), (5, 7, 3), (33, 10, 65), (18, 73, 40), (79, 2, 59)])
@pytest.mark.parametrize("transposed", ["neither", "a", "b", "both"])
@pytest.mark.parametrize("tiling", [(32, 1), (64, 12)], ids=str)
def test_a_product_with_operands_as_they_lie_or_transposed(monkeypatch, guarded, m, n, k, transposed, tiling):
    a = rand(k, m).t() if transposed in ("a", "both") else rand(m, k)
    b = rand(n, k).t() if transposed in ("b", "both") else rand(k, n)
    out, launched, run = guarded(m, n), [], kernels.product_kernel.run
    monkeypatch.setattr(kernels.product_kernel, "run", lambda *a, **named: launched.append(named) or run(*a, **named))
    assert kernels.product(a, b, out, tiling=tiling) is out
    torch.testing.assert_close(out, (a.double() @ b.double()).float(), **TOLERANCE)
    # Tiles are halved until there are enough programs: with 32 the hidden layer would leave most of a card idle.
    assert math.prod(launched[0]["grid"]) >= tiling[1] or launched[0]["TILE_M"] == launched[0]["TILE_N"] == 16


@pytest.mark.parametrize(("m", "n", "k"), [(1, 10, 17), (50, 33, 40)])
def test_bias_relu_and_the_backward_pass_of_relu(m, n, k):
    a, b, bias, gate = rand(m, k), rand(k, n), rand(n), F.relu(rand(m, n))
    linear = a @ b + bias
    assert (linear < 0).any() and (gate == 0).any()
    both = {"bias": bias, "relu": True}
    for options, expected in (({"bias": bias}, linear), (both, F.relu(linear)), ({"gate": gate}, (a @ b) * (gate > 0))):
        found = kernels.product(a, b, torch.empty(m, n, device=WHERE), tiling=(16, 1), **options)
        torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize(("n", "classes"), [(1, 10), (3, 1), (96, 10), (7, 17)])
@pytest.mark.parametrize("scale", [3, 1000])  # exp(1000) is infinite
def test_the_loss_and_its_gradient(guarded, n, classes, scale):
    logits, labels = (scale * rand(n, classes)).requires_grad_(), torch.randint(0, classes, (n,), device=WHERE)
    losses, gradient = guarded(n), guarded(n, classes)
    kernels.cross_entropy(logits.detach(), labels, losses, gradient)
    expected = F.cross_entropy(logits, labels)
    expected.backward()
    torch.testing.assert_close(losses.sum(), expected.detach(), **TOLERANCE)
    torch.testing.assert_close(gradient, logits.grad, **TOLERANCE)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (128, 1), (96, 10), (129, 33)])
def test_column_sums(guarded, rows, columns):
    a = rand(rows, columns)
    torch.testing.assert_close(kernels.column_sums(a, guarded(columns)), a.sum(0), **TOLERANCE)


# The step


def batches_of(mnist, *sizes):
    for images, labels in zip(*(part[: sum(sizes)].split(sizes) for part in mnist), strict=True):
        yield normalize(images.to(WHERE)), labels.to(WHERE)


@pytest.mark.parametrize(
    ("hidden", "sizes", "lr"), [(16, (128, 128, 96), 0.01), (17, (33, 1, 20), 0.05), (1, (5, 5), 0.01)]
)
def test_the_step_trains_the_models_own_parameters_as_the_plain_one_does(mnist, hidden, sizes, lr):
    options = {"lr": lr, "momentum": 1 - 10 * lr}
    ours, theirs = (make_model(hidden, device=WHERE) for _ in range(2))
    parameters = list(ours.parameters())
    step = kernels.make_kernel_step(ours, **options)
    plain = make_step(theirs, torch.optim.SGD(theirs.parameters(), **options))
    losses = [(step(*batch), plain(*batch)) for batch in batches_of(mnist, *sizes)]
    torch.testing.assert_close(*map(torch.stack, zip(*losses, strict=True)), rtol=0, atol=1e-5)
    assert all(ours.dim() == 0 and not ours.requires_grad for ours, _ in losses)
    for now, then, other in zip(ours.parameters(), parameters, theirs.parameters(), strict=True):
        assert now is then and now.requires_grad
        torch.testing.assert_close(now, other, rtol=0, atol=1e-5)
        momentum = step.optimizer.state[now]["momentum_buffer"]
        assert momentum.shape == now.shape and momentum.any()


def test_a_batch_need_not_be_contiguous_and_stays_as_it_was(mnist):
    ((images, labels),) = batches_of(mnist, 16)
    kept, step = (images.clone(), labels.clone()), kernels.make_kernel_step(make_model(8, device=WHERE))
    found = step(images[::2], labels[::2])
    again = kernels.make_kernel_step(make_model(8, device=WHERE))
    assert found.item() == again(images[::2].clone(), labels[::2].clone()).item()
    assert torch.equal(images, kept[0]) and torch.equal(labels, kept[1])


def test_what_a_step_cannot_read_is_named():
    images, labels = torch.zeros(4, 1, 28, 28, device=WHERE), torch.zeros(4, dtype=torch.int64, device=WHERE)
    step = kernels.make_kernel_step(make_model(4, device=WHERE))
    for wrong in (
        (images.byte(), labels), (images.view(4, 784), labels), (images, labels[1:]), (images, labels.float()),
        (images[:0], labels[:0]), (images.to("meta"), labels),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must be"):
            step(*wrong)


def test_a_graph_of_an_epoch_takes_the_step_and_its_optimizer(mnist, monkeypatch):
    """Here a replay runs the functions again; on a GPU see the ladder's rung."""
    monkeypatch.setattr(graphs, "record", lambda function, warm_up: warm_up() or function)
    monkeypatch.setattr(ladder, "load_mnist", lambda train: (mnist[0][:300], mnist[1][:300]))
    found = [train_part(make(WHERE, 8)).losses for make in (ladder.own_kernels, ladder.graph_of_own_kernels)]
    model, batches = make_model(8, device=WHERE), DeviceBatches(mnist[0][:300], mnist[1][:300], device=WHERE)
    plain = train_part((model, make_step(model, ladder.sgd(model)), batches)).losses
    assert found[0] == found[1] and len(plain) == 3
    assert_same_losses(found[0], plain)
