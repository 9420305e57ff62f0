"""Every kernel against PyTorch: interpreted on the CPU, or compiled on a GPU, as the process was started.

See chapters/test_chapter_09.py, which starts both.
"""

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_same_losses

from mnist_gpu.chapters.chapter_09 import launches_of
from mnist_gpu.data import DeviceBatches, normalize
from mnist_gpu.faster import graphs, kernels, ladder
from mnist_gpu.faster.graphs import EpochGraph
from mnist_gpu.faster.ladder import PLAIN, rungs, sgd
from mnist_gpu.faster.with_triton import interpreted, kernel_device
from mnist_gpu.measuring.workloads import train_part
from mnist_gpu.model import MLP, make_model
from mnist_gpu.training import make_step, train

WHERE = kernel_device()
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}  # float32, summed in another order


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def guarded(*shape, value=7.0):
    """A tensor of zeros, and the memory that it lies in the middle of, filled with `value`."""
    size = torch.Size(shape).numel()
    memory = torch.full((size + 8192,), value, device=WHERE)
    tensor = memory[4096 : 4096 + size].view(shape)
    return tensor.zero_(), memory


def untouched(memory, size, value=7.0):
    return bool((memory[:4096] == value).all() and (memory[4096 + size :] == value).all())


def rand(*shape):
    return torch.randn(*shape, device=WHERE)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1000, 1025])
def test_the_update_changes_its_elements_and_no_other(n):
    w, memory = guarded(n)
    start, g = rand(n), rand(n)
    w.copy_(start)
    kernels.update(w, g, 0.1, block=64)
    torch.testing.assert_close(w, start - 0.1 * g, **TOLERANCE)
    assert untouched(memory, n)


@pytest.mark.parametrize("n", [1, 3, 32, 96])
def test_gathered_images_have_the_same_bits_as_normalized_ones(n):
    images = torch.randint(0, 256, (50, 28, 28), dtype=torch.uint8, device=WHERE)
    images[0].view(-1)[:256] = torch.arange(256, device=WHERE)  # every value there is
    index = torch.randint(0, 50, (n,), device=WHERE)
    index[0] = 0
    found = kernels.gather_normalize(images, index)
    assert found.shape == (n, 1, 28, 28) and found.dtype == torch.float32
    assert torch.equal(found, normalize(images[index]))


def test_batches_made_by_the_kernel_are_those_of_the_device_pipeline(mnist):
    data = mnist[0][:300], mnist[1][:300]
    found, expected = (list(kind(*data, device=WHERE)) for kind in (kernels.KernelBatches, DeviceBatches))
    assert [len(labels) for _, labels in found] == [128, 128, 44]
    for ours, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (16, 16, 16), (5, 7, 3), (33, 10, 65), (18, 73, 40), (79, 2, 59)])
@pytest.mark.parametrize("transposed", ["neither", "a", "b", "both"])
def test_a_product_with_operands_as_they_lie_or_transposed(m, n, k, transposed):
    a = rand(k, m).t() if transposed in ("a", "both") else rand(m, k)
    b = rand(n, k).t() if transposed in ("b", "both") else rand(k, n)
    out, memory = guarded(m, n)
    assert kernels.product(a, b, out, tile=32) is out
    torch.testing.assert_close(out, (a.double() @ b.double()).float(), **TOLERANCE)
    assert untouched(memory, m * n)


@pytest.mark.parametrize(
    ("m", "n", "tiles"),
    [(300, 300, (64, 64)), (300, 128, (32, 64)), (100, 33, (16, 32)), (20, 128, (16, 16)), (1, 7, (16, 16))],
)
def test_tiles_are_halved_until_there_are_as_many_programs_as_asked_for(monkeypatch, m, n, tiles):
    """With tiles of 32 the hidden layer would leave most of a card idle."""
    monkeypatch.setattr(kernels, "TILING", kernels.Tiling(side=64, programs=12))
    a, b, (out, memory) = rand(m, 40), rand(40, n), guarded(m, n)
    (launch,) = launches_of(lambda: kernels.product(a, b, out))
    assert (launch.arguments["TILE_M"], launch.arguments["TILE_N"]) == tiles
    assert launch.programs >= 12 or tiles == (16, 16)
    kernels.product(a, b, out)
    torch.testing.assert_close(out, (a.double() @ b.double()).float(), **TOLERANCE)
    assert untouched(memory, m * n)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 10, 17), (50, 33, 40)])
def test_bias_relu_and_the_backward_pass_of_relu(m, n, k):
    a, b, bias, gate = rand(m, k), rand(k, n), rand(n), F.relu(rand(m, n))
    linear = a @ b + bias

    def found(**options):
        return kernels.product(a, b, torch.empty(m, n, device=WHERE), tile=16, **options)

    torch.testing.assert_close(found(bias=bias), linear, **TOLERANCE)
    torch.testing.assert_close(found(bias=bias, relu=True), F.relu(linear), **TOLERANCE)
    torch.testing.assert_close(found(gate=gate), (a @ b) * (gate > 0), **TOLERANCE)
    assert (linear < 0).any() and (gate == 0).any()


def test_a_product_is_not_rounded_to_tf32():
    """11 bits of 1/3 are wrong by 8e-5, and the sum of 784 of them by 0.06."""
    a, b = torch.full((16, 784), 1 / 3, device=WHERE), torch.ones(784, 16, device=WHERE)
    found = kernels.product(a, b, torch.empty(16, 16, device=WHERE))
    assert (found - 784 / 3).abs().max() < 0.02


@pytest.mark.parametrize(("n", "classes"), [(1, 10), (3, 1), (96, 10), (5, 16), (7, 17)])
def test_the_loss_and_its_gradient(n, classes):
    logits, labels = (3 * rand(n, classes)).requires_grad_(), torch.randint(0, classes, (n,), device=WHERE)
    (losses, _), (gradient, memory) = guarded(n), guarded(n, classes)
    kernels.cross_entropy(logits.detach(), labels, losses, gradient)
    expected = F.cross_entropy(logits, labels)
    expected.backward()
    torch.testing.assert_close(losses.sum(), expected.detach(), **TOLERANCE)
    torch.testing.assert_close(gradient, logits.grad, **TOLERANCE)
    assert untouched(memory, n * classes)


def test_large_logits_do_not_overflow():
    logits = torch.tensor([[1000.0, 0.0, -1000.0], [-1000.0, -1001.0, -1002.0]], device=WHERE)
    labels, losses, gradient = torch.tensor([1, 0], device=WHERE), rand(2), rand(2, 3)
    kernels.cross_entropy(logits, labels, losses, gradient)
    torch.testing.assert_close(losses.sum(), F.cross_entropy(logits, labels), **TOLERANCE)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (128, 1), (96, 10), (129, 33), (200, 100)])
def test_column_sums(rows, columns):
    a, (out, memory) = rand(rows, columns), guarded(columns)
    (launch,) = launches_of(lambda: kernels.column_sums(a, out))
    assert launch.arguments["BLOCK_C"] < 2 * columns  # at least half of a block is there
    kernels.column_sums(a, out)
    torch.testing.assert_close(out, a.sum(0), **TOLERANCE)
    assert untouched(memory, columns)


@pytest.mark.parametrize("n", [1, 64, 65, 1000])
def test_sgd_with_momentum(n):
    parameter = torch.nn.Parameter(rand(n))
    (w, memory), (v, _) = guarded(n), guarded(n)
    w.copy_(parameter.detach())
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    for _ in range(3):
        parameter.grad = rand(n)
        kernels.sgd(w, v, parameter.grad, 0.1, 0.9, block=64)
        optimizer.step()
    torch.testing.assert_close(w, parameter.detach(), **TOLERANCE)
    assert untouched(memory, n)


# The step


def batches_of(mnist, sizes):
    start = 0
    for size in sizes:
        images, labels = (part[start : start + size].to(WHERE) for part in mnist)
        yield normalize(images), labels
        start += size


def trained(make, mnist, hidden, sizes):
    model = make_model(hidden, device=WHERE)
    step = make(model)
    losses = [step(*batch) for batch in batches_of(mnist, sizes)]
    return model, torch.stack(losses), step


@pytest.mark.parametrize(
    ("hidden", "sizes", "lr"),
    [(16, (128, 128, 128, 96), 0.01), (17, (33, 1, 33, 20), 0.05), (1, (5, 5), 0.01), (128, (96, 96), 0.01)],
)
def test_the_step_gives_the_losses_and_weights_of_the_plain_one(mnist, hidden, sizes, lr):
    options = {"lr": lr, "momentum": 1 - 10 * lr}
    theirs, expected, _ = trained(
        lambda m: make_step(m, torch.optim.SGD(m.parameters(), **options)), mnist, hidden, sizes
    )
    ours, losses, step = trained(lambda m: kernels.make_kernel_step(m, **options), mnist, hidden, sizes)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    momenta = [step.optimizer.state[p]["momentum_buffer"] for p in ours.parameters()]
    assert [m.shape for m in momenta] == [p.shape for p in theirs.parameters()]
    assert all(m.any() for m in momenta)


def test_the_models_own_parameters_are_trained_and_every_loss_is_fresh(mnist):
    model = make_model(8, device=WHERE)
    parameters, before = list(model.parameters()), [p.detach().clone() for p in model.parameters()]
    step = kernels.make_kernel_step(model)
    ((images, labels),) = batches_of(mnist, (16,))
    kept = images.clone(), labels.clone()
    first = step(images, labels)
    value, second = first.item(), step(images, labels)
    assert all(now is then for now, then in zip(model.parameters(), parameters, strict=True))
    assert all(isinstance(p, torch.nn.Parameter) and p.requires_grad for p in parameters)
    assert not any(torch.equal(now, then) for now, then in zip(parameters, before, strict=True))
    assert first.dim() == 0 and first.dtype == torch.float32 and not first.requires_grad
    assert first.item() == value > second.item()
    assert torch.equal(images, kept[0]) and torch.equal(labels, kept[1])


def test_images_and_labels_need_not_be_contiguous(mnist):
    ((images, labels),) = batches_of(mnist, (16,))
    expected = kernels.make_kernel_step(make_model(8, device=WHERE))(images[::2], labels[::2])
    model = make_model(8, device=WHERE)
    assert kernels.make_kernel_step(model)(images[::2].clone(), labels[::2].clone()).item() == expected.item()


# What goes wrong


def test_what_a_step_cannot_train_is_named():
    for lr in (0, float("nan"), True):
        with pytest.raises(ValueError, match=f"lr is {lr!r}"):
            kernels.make_kernel_step(make_model(4, device=WHERE), lr=lr)
    for model in (MLP(4).to("meta"), MLP(4).double().to(WHERE)):
        with pytest.raises(ValueError, match=f"a float32 model on '{WHERE.type}'"):
            kernels.make_kernel_step(model)


@pytest.mark.parametrize("wrong", ["uint8 images", "flat images", "a label less", "float labels", "none", "elsewhere"])
def test_a_batch_that_is_none_is_refused_before_a_kernel_reads_it(wrong):
    images, labels = torch.zeros(4, 1, 28, 28, device=WHERE), torch.zeros(4, dtype=torch.int64, device=WHERE)
    images, labels = {
        "uint8 images": (images.byte(), labels),
        "flat images": (images.view(4, 784), labels),
        "a label less": (images, labels[1:]),
        "float labels": (images, labels.float()),
        "none": (images[:0], labels[:0]),
        "elsewhere": (images.to("meta"), labels),
    }[wrong]
    with pytest.raises(ValueError, match=r"(images|labels) are torch\.\w+ \[.*\] on .*, but must be torch"):
        kernels.make_kernel_step(make_model(4, device=WHERE))(images, labels)


def test_a_graph_of_an_epoch_takes_the_step_and_its_optimizer(mnist, monkeypatch):
    """Here a replay runs the functions again; on a GPU see the ladder's rung."""
    monkeypatch.setattr(graphs, "record", lambda function, warm_up: warm_up() or function)
    monkeypatch.setattr(graphs, "_need_cuda", lambda model: None)
    data, losses = (mnist[0][:100], mnist[1][:100]), {}
    for captured in (False, True):
        model, batches = make_model(8, device=WHERE), kernels.KernelBatches(*data, 32, device=WHERE)
        step = kernels.make_kernel_step(model)
        if captured:
            batches = EpochGraph(step, model, step.optimizer, batches)
        history = train(model, batches.step if captured else step, batches, epochs=2, log=lambda *line: None)
        losses[captured] = [epoch.losses for epoch in history]
    assert losses[True] == losses[False] and len(losses[True][0]) == 4


@pytest.mark.gpu
@pytest.mark.cuda
@pytest.mark.parametrize(
    "rung", rungs(["kernels of our own", "kernels of our own, as a CUDA graph"]), ids=lambda r: r.name
)
def test_a_whole_epoch_has_the_losses_of_the_plain_loop(rung):
    if reason := rung.missing(WHERE) or ("interpreted" if interpreted() else None):
        pytest.skip(reason)
    expected, found = (train_part(r.make(WHERE)).losses for r in (*rungs([PLAIN]), rung))
    assert len(found) == 469
    assert_same_losses(found, expected, rung.tolerance)


def test_the_rungs_train_with_these_kernels(mnist, monkeypatch):
    monkeypatch.setattr(ladder, "load_mnist", lambda train: (mnist[0][:300], mnist[1][:300]))
    losses = train_part(ladder.own_kernels(WHERE, 8)).losses
    batches = DeviceBatches(mnist[0][:300], mnist[1][:300], device=WHERE)
    model = make_model(8, device=WHERE)
    assert_same_losses(losses, train_part((model, make_step(model, sgd(model)), batches)).losses)
    if WHERE.type == "cpu":
        with pytest.raises(ValueError, match="CUDA graphs need a CUDA device"):
            ladder.graph_of_own_kernels(WHERE, 8)
