from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_same_losses, in_float64
from torch import nn
from tqdm import tqdm

from mnist_gpu import training
from mnist_gpu.data import DeviceBatches, MemoryBatches, normalize
from mnist_gpu.measuring.workloads import First
from mnist_gpu.model import make_model
from mnist_gpu.training import Epoch, LossNotFinite, evaluate, make_step, print_loss, train


def sgd(model, lr=0.01):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def silent(epoch, i, loss):
    pass


@pytest.fixture
def small(mnist):
    """Ten batches of 64."""
    return DeviceBatches(mnist[0][:640], mnist[1][:640], batch_size=64)


class Batches:
    """Ten batches per pass; `broken` (pass, batch) raises `error` instead, both counted from 1."""

    def __init__(self, batches, broken, error):
        self.batches, self.broken, self.error, self.passes = batches, broken, error, 0

    def __iter__(self):
        self.passes += 1
        for i, batch in enumerate(self.batches, start=1):
            if (self.passes, i) == self.broken:
                raise self.error
            yield batch


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

    batches = in_float64(DeviceBatches(images, labels))
    (epoch,) = train(model, make_step(model, sgd(model)), batches, log=silent)
    assert epoch.losses == pytest.approx(expected, abs=1e-9)
    assert expected[-1] < expected[0] / 3  # it has learned, so the comparison means something
    for parameter, theirs in zip(model.parameters(), naive.parameters(), strict=True):
        assert torch.allclose(parameter, theirs, atol=1e-9)


def test_five_epochs_reach_96_percent_on_the_test_set(mnist, mnist_test):
    model = make_model(seed=0)
    history = train(model, make_step(model, sgd(model)), DeviceBatches(*mnist), epochs=5, log=silent)
    found = evaluate(model, DeviceBatches(*mnist_test, 1000, seed=None))
    assert 0.96 <= found.accuracy < 0.98
    losses = [e.loss for e in history]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.15 and found.loss < 0.15


def test_two_runs_with_the_same_seed_are_identical(mnist):
    runs = []
    for _ in range(2):
        model = make_model(seed=0)
        (epoch,) = train(model, make_step(model, sgd(model)), First(MemoryBatches(*mnist), 50), log=silent)
        runs.append((epoch.losses, [*model.parameters()]))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))


# What is logged and kept


def test_log_lines_have_the_textbooks_form(capsys):
    print_loss(1, 100, 0.9076)
    print_loss(12, 4600, 0.05)
    assert capsys.readouterr().out == "[1,   100] loss: 0.908\n[12,  4600] loss: 0.050\n"


def test_a_training_prints_the_textbooks_log_lines(small, capsys):
    model = make_model()
    history = train(model, make_step(model, sgd(model)), small, epochs=2, log_every=5)
    expected = [f"[{e.number}, {i:5d}] loss: {e.logged[i // 5 - 1]:.3f}" for e in history for i in (5, 10)]
    assert capsys.readouterr().out.splitlines() == expected


def test_every_logged_number_is_the_mean_of_the_losses_since_the_one_before(mnist):
    model, lines = make_model(), []
    batches = First(DeviceBatches(*mnist), 250)
    (epoch,) = train(model, make_step(model, sgd(model)), batches, log=lambda *line: lines.append(line))
    assert len(epoch.losses) == 250 and epoch.images == 250 * 128
    means = [sum(epoch.losses[:100]) / 100, sum(epoch.losses[100:200]) / 100]
    assert epoch.logged == pytest.approx(means, abs=1e-6)
    assert lines == [(1, 100, epoch.logged[0]), (1, 200, epoch.logged[1])]
    assert epoch.loss == pytest.approx(sum(epoch.losses) / 250)


def test_the_history_goes_on_from_where_it_ended(small):
    model, history, lines = make_model(), [], []
    step = make_step(model, sgd(model))
    first = train(model, step, small, epochs=2, log=silent, history=history)
    train(model, step, small, epochs=1, log_every=10, log=lambda *line: lines.append(line), history=history)
    assert first is history and [e.number for e in history] == [1, 2, 3]
    assert lines[0][0] == 3


def test_seconds_and_images_per_second_are_those_of_the_clock(small, monkeypatch):
    ticks = iter([10.0, 14.0, 20.0, 22.0])
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    model = make_model()
    history = train(model, make_step(model, sgd(model)), small, epochs=2, log=silent)
    assert [e.seconds for e in history] == [4.0, 2.0]
    assert [e.images_per_s for e in history] == [160.0, 320.0]


def test_the_clock_runs_from_an_idle_device_to_an_idle_device(small, monkeypatch):
    events = []
    monkeypatch.setattr(training, "synchronize", lambda device: events.append("wait"))
    clock = SimpleNamespace(perf_counter=lambda: events.append("clock") or len(events))
    monkeypatch.setattr(training, "time", clock)
    model = make_model()
    plain = make_step(model, sgd(model))

    def step(images, labels):
        events.append("step")
        return plain(images, labels)

    train(model, step, First(small, 2), log=silent)
    assert events == ["wait", "clock", "step", "step", "wait", "clock"]


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


def test_a_step_runs_the_forward_pass_within_autocast(small):
    model, seen = make_model(), []
    model.output.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    images, labels = next(iter(small))
    loss = make_step(model, sgd(model), torch.autocast("cpu", dtype=torch.bfloat16))(images, labels)
    make_step(model, sgd(model))(images, labels)
    assert seen == [torch.bfloat16, torch.float32]
    assert loss.dtype == torch.float32 and all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_the_host_reads_the_device_once_a_log_point_and_at_the_end_of_an_epoch(mnist, monkeypatch):
    model, reads = make_model(), []
    plain = make_step(model, sgd(model))
    batches = First(DeviceBatches(*mnist), 250)
    for name in ("item", "tolist", "__float__", "__bool__", "__int__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, name=name, original=original):
            reads.append((name, steps))
            return original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    steps = 0

    def step(images, labels):
        nonlocal steps
        steps += 1
        return plain(images, labels)

    train(model, step, batches, log=silent)
    assert reads == [("item", 100), ("item", 200), ("item", 250), ("tolist", 250)]


def test_the_model_is_in_training_mode_in_every_epoch(small):
    model, modes = make_model(), []
    plain = make_step(model, sgd(model))

    def step(images, labels):
        modes.append(model.training)
        model.eval()  # as an evaluation in the log function might
        return plain(images, labels)

    train(model, step, First(small, 1), epochs=3, log=silent)
    assert modes == [True] * 3


# Evaluation


@pytest.mark.parametrize("mode", [True, False])
def test_evaluate_counts_right_answers_and_leaves_the_models_mode(mnist_test, mode):
    model = make_model(seed=1).train(mode)
    found = evaluate(model, DeviceBatches(*mnist_test, batch_size=999, seed=None))  # a last batch of 10
    assert model.training is mode
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():
        logits = model(normalize(mnist_test[0]))
    right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, mnist_test[1], strict=True))
    assert found.accuracy == right / 10_000
    assert found.loss == pytest.approx(F.cross_entropy(logits, mnist_test[1]).item(), rel=1e-5)


def test_evaluate_puts_the_model_in_evaluation_mode(small):
    model, modes = nn.Sequential(make_model(), nn.Dropout(0.99)), []
    model[1].register_forward_hook(lambda module, inputs, output: modes.append(module.training))
    model.train()
    evaluate(model, First(small, 2))
    assert modes == [False, False] and model[1].training


def test_evaluating_on_nothing_is_an_error():
    with pytest.raises(ValueError, match="yielded nothing"):
        evaluate(make_model(), [])


# What goes wrong


def test_images_that_are_nan_stop_the_training_at_the_next_log_point(small):
    model, history = make_model(), []
    step = make_step(model, sgd(model))
    train(model, step, small, epochs=2, log=silent, history=history)
    bad = [(images * float("nan"), labels) if i == 6 else (images, labels) for i, (images, labels) in enumerate(small)]
    with pytest.raises(LossNotFinite, match=r"the loss is nan at epoch 3, step 8\. Finished epochs are in the history"):
        train(model, step, bad, log_every=4, log=silent, history=history)
    assert [e.number for e in history] == [1, 2]


def test_a_learning_rate_that_is_too_high_is_named_as_a_cause(small):
    model = make_model()
    with pytest.raises(LossNotFinite, match="learning rate"):
        train(model, make_step(model, sgd(model, lr=1e30)), small, epochs=3, log_every=5, log=silent)


def test_an_infinite_loss_stops_the_training(small):
    model = make_model()
    with pytest.raises(LossNotFinite, match="the loss is inf at epoch 1, step 1"):
        train(model, lambda images, labels: torch.tensor(float("inf")), small, log_every=1, log=silent)


def test_an_epoch_shorter_than_log_every_is_checked_at_its_end(small):
    model, history = make_model(), []
    with pytest.raises(LossNotFinite, match="epoch 1, step 10"):
        train(model, lambda images, labels: torch.tensor(float("nan")), small, log=silent, history=history)
    assert history == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a worker died")])
def test_an_interrupt_loses_only_the_epoch_it_falls_in(small, error):
    model, history = make_model(), []
    with pytest.raises(type(error)):
        train(
            model,
            make_step(model, sgd(model)),
            Batches(small, (2, 5), error),
            epochs=3,
            log=silent,
            history=history,
        )
    assert len(history) == 1 and history[0].number == 1 and len(history[0].losses) == 10
    assert isinstance(history[0], Epoch)


@pytest.mark.parametrize("batches", [[], iter(())])
def test_no_batches_are_an_error(batches):
    model = make_model()
    with pytest.raises(ValueError, match="batches yielded nothing"):
        train(model, make_step(model, sgd(model)), batches)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
@pytest.mark.parametrize("name", ["epochs", "log_every"])
def test_bad_epochs_or_log_every_are_named_before_anything_is_done(small, name, value):
    model, history = make_model(), []
    with pytest.raises(ValueError, match=f"{name} is {value!r}, but must be a whole number of at least 1"):
        train(model, lambda *batch: pytest.fail("a step was made"), small, history=history, **{name: value})
    assert history == []


@pytest.mark.parametrize(
    "wrap",
    [lambda b: b, lambda b: tqdm(b, disable=True), lambda b: First(b, 3), lambda b: tqdm(First(b, 3), disable=True)],
    ids=["plain", "tqdm", "First", "tqdm of First"],
)
def test_out_of_memory_says_the_batch_size_what_was_free_and_what_to_try(small, monkeypatch, wrap):
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (300 * 2**20, 12_288 * 2**20))

    def step(images, labels):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory") as caught:
        train(make_model(), step, wrap(small), log=silent)
    (note,) = caught.value.__notes__
    for part in ("Batch size 64", "300 of the device's 12288 MiB", "smaller batch", "device='cpu'"):
        assert part in note


def test_out_of_memory_with_batches_of_an_unknown_size(small, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (0, 2**30))

    def step(images, labels):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError) as caught:
        train(make_model(), step, list(small), log=silent)
    assert "Batch size unknown; 0 of the device's 1024 MiB" in caught.value.__notes__[0]


# On a GPU


@pytest.mark.gpu
def test_the_losses_on_the_gpu_are_those_on_the_cpu(gpu, mnist):
    losses = []
    for device in ("cpu", gpu):
        model = make_model(device=device)
        batches = First(DeviceBatches(*mnist, device=device), 200)
        (epoch,) = train(model, make_step(model, sgd(model)), batches, log=silent)
        losses.append(epoch.losses)
        assert next(model.parameters()).device.type == torch.device(device).type
    assert_same_losses(losses[1], losses[0])


@pytest.mark.gpu
def test_evaluation_on_the_gpu_is_that_on_the_cpu(gpu, mnist_test):
    here, there = (evaluate(make_model(device=d), DeviceBatches(*mnist_test, device=d)) for d in ("cpu", gpu))
    assert there.loss == pytest.approx(here.loss, abs=1e-4)
    assert there.accuracy == pytest.approx(here.accuracy, abs=1e-3)
