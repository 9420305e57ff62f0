from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_same_losses, losses_of, silent
from torch import nn

from mnist_gpu import training
from mnist_gpu.data import DeviceBatches, normalize
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.measuring.workloads import First
from mnist_gpu.model import make_model
from mnist_gpu.training import LossNotFinite, evaluate, make_step, train


@pytest.fixture
def small(mnist):
    """Ten batches of 64."""
    return DeviceBatches(mnist[0][:640], mnist[1][:640], batch_size=64)


# The same as the textbook


def test_the_loop_gives_the_losses_of_a_naive_one(mnist):
    images, labels = mnist[0][:38_400], mnist[1][:38_400]  # 300 batches of 128
    model = make_model(seed=0).double()

    naive = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)).double()
    with torch.no_grad():
        for parameter, start in zip(naive.parameters(), model.parameters(), strict=True):
            parameter.copy_(start)
    optimizer = torch.optim.SGD(naive.parameters(), lr=0.01, momentum=0.9)
    order = torch.randperm(38_400, generator=torch.Generator().manual_seed(0))
    expected = []
    for i in range(300):
        index = order[i * 128 : (i + 1) * 128]
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(naive((images[index].unsqueeze(1) / 255 - 0.5).double() / 0.5), labels[index])
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    batches = [(some.double(), digits) for some, digits in DeviceBatches(images, labels)]  # the agreement is closer
    assert losses_of(model, make_step(model, sgd(model)), batches) == pytest.approx(expected, abs=1e-9)
    assert expected[-1] < expected[0] / 3  # it has learned, so the comparison means something
    for parameter, theirs in zip(model.parameters(), naive.parameters(), strict=True):
        assert torch.allclose(parameter, theirs, atol=1e-9)


def test_five_epochs_reach_96_percent_on_the_test_set(mnist, mnist_test):
    model = make_model(seed=0)
    history = train(model, make_step(model, sgd(model)), DeviceBatches(*mnist), epochs=5, log=silent)
    found = evaluate(model, DeviceBatches(*mnist_test, 1000, seed=None))
    assert 0.96 <= found.accuracy < 0.98
    losses = [sum(e.losses) / len(e.losses) for e in history]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.15 and found.loss < 0.15


# What is logged and kept


def test_log_lines_have_the_textbooks_form_and_are_means_of_the_losses_since_the_one_before(mnist, capsys):
    model, history = make_model(), []
    step, batches = make_step(model, sgd(model)), First(DeviceBatches(*mnist), 25)
    assert train(model, step, batches, log_every=10, history=history) is history
    train(model, step, batches, log_every=10, history=history)
    first, second = history
    assert len(first.losses) == 25 and first.images == 25 * 128 and second.number == 2
    assert first.logged == pytest.approx([sum(first.losses[:10]) / 10, sum(first.losses[10:20]) / 10], abs=1e-6)
    expected = [f"[{e.number}, {i:5d}] loss: {e.logged[i // 10 - 1]:.3f}" for e in history for i in (10, 20)]
    assert capsys.readouterr().out.splitlines() == expected and expected[0].startswith("[1,    10] loss: 2.")


def test_the_clock_runs_from_an_idle_device_to_an_idle_device(small, monkeypatch):
    events, ticks = [], iter([10.0, 14.0])
    monkeypatch.setattr(training, "synchronize", lambda device: events.append("wait"))
    clock = SimpleNamespace(perf_counter=lambda: events.append("clock") or next(ticks))
    monkeypatch.setattr(training, "time", clock)
    model = make_model()
    plain = make_step(model, sgd(model))

    def step(images, labels):
        assert model.training
        model.eval()  # as an evaluation in the log function might
        events.append("step")
        return plain(images, labels)

    (epoch,) = train(model, step, First(small, 1), log=silent)
    assert events == ["wait", "clock", "step", "wait", "clock"]
    assert (epoch.seconds, epoch.images) == (4.0, 64)


# The step


def test_a_step_returns_a_fresh_detached_scalar_the_loss_before_the_update(small):
    model = make_model()
    step = make_step(model, sgd(model))
    images, labels = next(iter(small))
    expected = F.cross_entropy(model(images), labels).item()
    first = step(images, labels)
    second = step(images, labels)
    assert first.dim() == 0 and not first.requires_grad and first.grad_fn is None
    assert first.data_ptr() != second.data_ptr() and first.item() == expected != second.item()


# Evaluation


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("mode", [True, False])
def test_evaluate_counts_right_answers_and_leaves_the_models_mode(mnist_test, mode, device, request):
    device, seen = request.getfixturevalue(device) if device == "gpu" else device, []
    model = make_model(seed=1, device=device).train(mode)
    model.register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    found = evaluate(model, DeviceBatches(*mnist_test, 999, seed=None, device=device))  # a last batch of 10
    assert model.training is mode and seen == [False] * 11
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():
        logits = make_model(seed=1)(normalize(mnist_test[0]))
    right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, mnist_test[1], strict=True))
    assert found.accuracy == pytest.approx(right / 10_000, abs=0 if device == "cpu" else 1e-3)
    assert found.loss == pytest.approx(F.cross_entropy(logits, mnist_test[1]).item(), rel=1e-4)


# What goes wrong


def test_images_that_are_nan_stop_the_training_at_the_next_log_point(small):
    model, history = make_model(), []
    step = make_step(model, sgd(model))
    train(model, step, small, epochs=2, log=silent, history=history)
    bad = [(images * float("nan"), labels) if i == 6 else (images, labels) for i, (images, labels) in enumerate(small)]
    with pytest.raises(LossNotFinite, match=r"nan at epoch 3, step 8.*history.*learning rate"):
        train(model, step, bad, log_every=4, log=silent, history=history)
    with pytest.raises(LossNotFinite, match=r"epoch 3, step 10"):  # before a log point: at the end of the epoch
        train(model, step, bad, log=silent, history=history)
    with pytest.raises(LossNotFinite, match="inf at epoch 3, step 1"):
        train(model, lambda *batch: torch.tensor(float("inf")), bad, log_every=1, log=silent, history=history)
    assert [e.number for e in history] == [1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a worker died")])
def test_an_interrupt_loses_only_the_epoch_it_falls_in(small, error):
    model, history, steps = make_model(), [], iter(range(15))
    plain = make_step(model, sgd(model))

    def step(images, labels):
        if next(steps) == 14:
            raise error
        return plain(images, labels)

    with pytest.raises(type(error)):
        train(model, step, small, epochs=3, log=silent, history=history)
    assert [(e.number, len(e.losses)) for e in history] == [(1, 10)]


def test_no_batches_are_an_error():
    with pytest.raises(ValueError, match="batches yielded nothing"):
        train(make_model(), lambda images, labels: None, [])


# On a GPU


@pytest.mark.gpu
def test_the_losses_on_the_gpu_are_those_on_the_cpu(gpu, mnist):
    losses = []
    for device in ("cpu", gpu):
        model = make_model(device=device)
        batches = First(DeviceBatches(*mnist, device=device), 200)
        losses.append(losses_of(model, make_step(model, sgd(model)), batches))
    assert_same_losses(losses[1], losses[0])
