import pytest
import torch
from agreement import assert_same_losses
from torch import nn

from mnist_gpu.batches import DeviceBatches
from mnist_gpu.faster.graphs import EpochGraph, capture, restored
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step, train


def record(function):
    """On a CPU: a replay runs the function again, on the same tensors."""
    return function


def warm_up(function):
    for _ in range(3):
        function()


FAKES = {"record": record, "warm_up": warm_up}


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.01, "momentum": 0.9} | options)


def losses_of(model, step, batches, epochs=2):
    history = train(model, step, batches, epochs=epochs, log=lambda *line: None)
    return [epoch.losses for epoch in history]


def weights_of(model):
    return [p.detach().clone() for p in model.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def make_batches(mnist):
    """Five batches of 64 and one of 20, in a new order every pass; each call begins with the first pass."""
    return lambda: DeviceBatches(mnist[0][:340], mnist[1][:340], batch_size=64)


@pytest.fixture
def plain(make_batches):
    """What the plain loop gives in two epochs: weights and losses."""
    model = make_model(16)
    losses = losses_of(model, make_step(model, sgd(model)), make_batches())
    return weights_of(model), losses


# Restoring


def test_weights_momentum_and_random_numbers_are_afterwards_as_before(make_batches):
    model = make_model(16)
    optimizer = sgd(model)
    step, batches = make_step(model, optimizer), list(make_batches())
    step(*batches[0])
    momenta = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    before, kept, drawn = weights_of(model), [m.clone() for m in momenta], torch.get_rng_state()
    with restored(model, optimizer):
        for batch in batches[1:]:
            step(*batch)
        torch.rand(3)
        assert not same(model.parameters(), before) and not same(momenta, kept)
    assert same(model.parameters(), before) and same(momenta, kept)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(optimizer.state[p]["momentum_buffer"] is m for p, m in zip(model.parameters(), momenta, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_the_weights_are_restored_in_place():
    model = make_model(16)
    addresses = [p.data_ptr() for p in model.parameters()]
    with restored(model, sgd(model)), torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    assert [p.data_ptr() for p in model.parameters()] == addresses
    assert same(model.parameters(), make_model(16).parameters())


def test_buffers_are_restored_too(make_batches):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10))
    optimizer = sgd(model)
    images, labels = next(iter(make_batches()))
    with restored(model, optimizer):
        make_step(model, optimizer)(images, labels)
        assert model[1].num_batches_tracked == 1 and model[1].running_mean.any()
    assert model[1].num_batches_tracked == 0 and not model[1].running_mean.any()


def test_a_momentum_that_did_not_exist_is_zero_and_trains_as_a_new_one(make_batches, plain):
    model = make_model(16)
    optimizer = sgd(model)
    step = make_step(model, optimizer)
    with restored(model, optimizer):
        step(*next(iter(make_batches())))
        inside = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    after = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    assert all(a is b and not a.any() for a, b in zip(after, inside, strict=True))
    assert losses_of(model, step, make_batches()) == plain[1] and same(model.parameters(), plain[0])


def test_an_error_inside_restores_as_well():
    model = make_model(16)
    with pytest.raises(RuntimeError, match="out of order"), restored(model, sgd(model)):
        model.hidden.weight.data.fill_(7.0)
        torch.rand(1)
        raise RuntimeError("out of order")
    assert same(model.parameters(), make_model(16).parameters())


def test_dampening_is_refused_before_the_first_step_only(make_batches):
    model = make_model(16)
    optimizer = sgd(model, dampening=0.1)
    with (
        pytest.raises(ValueError, match="dampening treats its first step differently: take one"),
        restored(model, optimizer),
    ):
        pytest.fail("it went on")
    make_step(model, optimizer)(*next(iter(make_batches())))
    with restored(model, optimizer):
        pass


# A step


def test_captured_steps_train_as_the_plain_loop_with_a_smaller_last_batch(make_batches, plain):
    model = make_model(16)
    optimizer = sgd(model)
    step = capture(make_step(model, optimizer), model, optimizer, **FAKES)
    assert losses_of(model, step, make_batches()) == plain[1]
    assert same(model.parameters(), plain[0])
    assert [len(losses) for losses in plain[1]] == [6, 6]


def test_a_capture_amid_a_training_goes_on_with_its_momentum(make_batches, plain):
    model = make_model(16)
    optimizer = sgd(model)
    batches, eager = make_batches(), make_step(model, optimizer)
    first = losses_of(model, eager, batches, epochs=1)
    second = losses_of(model, capture(eager, model, optimizer, **FAKES), batches, epochs=1)
    assert first + second == plain[1] and same(model.parameters(), plain[0])


def test_a_capture_is_made_once_at_the_first_call(make_batches):
    model, events = make_model(16), []
    optimizer = sgd(model)

    def noted(function):
        events.append("record")
        return lambda: events.append("replay") or function()

    step = capture(make_step(model, optimizer), model, optimizer, record=noted, warm_up=warm_up)
    assert events == []
    losses_of(model, step, make_batches())
    assert events == ["record"] + ["replay"] * 10  # the last batch of a pass is too small for the graph


def test_a_replay_reads_from_the_same_addresses_and_the_callers_batches_stay(make_batches):
    model, seen = make_model(16), []
    optimizer = sgd(model)
    plain_step = make_step(model, optimizer)

    def step(images, labels):
        seen.append((images.data_ptr(), labels.data_ptr()))
        return plain_step(images, labels)

    captured = capture(step, model, optimizer, **FAKES)
    given, untouched = list(make_batches()), list(make_batches())
    for batch in given:
        captured(*batch)
    assert len(set(seen[:-1])) == 1 and len(seen) == 3 + 6
    assert all(same(a, b) for a, b in zip(given, untouched, strict=True))


def test_a_later_replay_does_not_overwrite_a_loss(make_batches):
    model, of_the_graph = make_model(16), torch.zeros(())
    optimizer = sgd(model)
    plain_step = make_step(model, optimizer)
    captured = capture(lambda *batch: of_the_graph.copy_(plain_step(*batch)), model, optimizer, **FAKES)
    losses = [captured(*batch) for batch in list(make_batches())[:5]]
    other = make_model(16)
    step = make_step(other, sgd(other))
    assert [loss.item() for loss in losses] == [step(*batch).item() for batch in list(make_batches())[:5]]
    assert all(loss.dim() == 0 and not loss.requires_grad for loss in losses)


def captured_on(batch, **options):
    model = make_model(16)
    optimizer = sgd(model, **options)
    step = capture(make_step(model, optimizer), model, optimizer, **FAKES)
    step(*batch)
    return step, model, optimizer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:, :, :14], y), r"images are torch.float32 \[64, 1, 14, 28\] on cpu, but were captured as"),
        (lambda x, y: (x.double(), y), r"images are torch.float64 .* captured as torch.float32 \[64, 1, 28, 28\]"),
        (lambda x, y: (x.to("meta"), y), "images are .* on meta, but were captured as .* on cpu"),
        (lambda x, y: (x, y.int()), r"labels are torch.int32 \[64\] on cpu, but were captured as torch.int64 \[64\]"),
        (lambda x, y: (x, y[:, None]), r"labels are torch.int64 \[64, 1\] .* only the number of images may differ"),
        (lambda x, y: (x[:9].double(), y[:9]), r"images are torch.float64 \[9, 1, 28, 28\]"),
    ],
    ids=["images' shape", "images' type", "device", "labels' type", "labels' shape", "a smaller batch"],
)
def test_a_batch_of_another_kind_is_refused_and_nothing_is_trained(make_batches, change, message):
    images, labels = next(iter(make_batches()))
    step, model, _ = captured_on((images, labels))
    before = weights_of(model)
    with pytest.raises(ValueError, match=message):
        step(*change(images, labels))
    assert same(model.parameters(), before)


@pytest.mark.parametrize("size", [64, 20])
def test_a_learning_rate_changed_after_the_capture_is_refused(make_batches, size):
    images, labels = next(iter(make_batches()))
    step, model, optimizer = captured_on((images, labels))
    before = weights_of(model)
    optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(ValueError, match=r"changed after the capture \(lr from 0.01 to 0.5\).*capture again"):
        step(images[:size], labels[:size])
    assert same(model.parameters(), before)
    optimizer.param_groups[0]["lr"] = 0.01
    step(images[:size], labels[:size])
    assert not same(model.parameters(), before)


def test_the_learning_rate_may_change_until_the_capture(make_batches):
    batch = next(iter(make_batches()))
    model, other = make_model(16), make_model(16)
    optimizer = sgd(model)
    step = capture(make_step(model, optimizer), model, optimizer, **FAKES)
    optimizer.param_groups[0]["lr"] = 0.5
    step(*batch)
    make_step(other, sgd(other, lr=0.5))(*batch)
    assert same(model.parameters(), other.parameters())


def test_a_capture_with_dampening_is_refused_and_trains_nothing(make_batches):
    with pytest.raises(ValueError, match="dampening"):
        captured_on(next(iter(make_batches())), dampening=0.1)


def test_a_model_on_the_cpu_has_no_graphs(make_batches):
    model = make_model(16)
    optimizer = sgd(model)
    step = make_step(model, optimizer)
    with pytest.raises(ValueError, match="the model is on 'cpu', but CUDA graphs need a CUDA device"):
        capture(step, model, optimizer)
    with pytest.raises(ValueError, match="the model is on 'cpu', but CUDA graphs need a CUDA device"):
        EpochGraph(step, model, optimizer, make_batches())


# An epoch


def epoch_graph(batches, model=None, **changes):
    model = model or make_model(16)
    optimizer = sgd(model)
    return EpochGraph(make_step(model, optimizer), model, optimizer, batches, **FAKES | changes), model, optimizer


def test_a_graph_of_an_epoch_trains_as_the_plain_loop_with_a_smaller_last_batch(make_batches, plain):
    epoch, model, _ = epoch_graph(make_batches())
    history = train(model, epoch.step, epoch, epochs=2, log=lambda *line: None)
    assert [e.losses for e in history] == plain[1] and same(model.parameters(), plain[0])
    assert [e.images for e in history] == [340, 340] and len(epoch) == 6


@pytest.mark.parametrize("batch_size", [400, 340, 170])
def test_a_graph_of_an_epoch_may_have_one_batch_or_batches_of_one_size(mnist, batch_size):
    images, labels = (t[:340] for t in mnist)
    eager = make_model(16)
    expected = losses_of(eager, make_step(eager, sgd(eager)), DeviceBatches(images, labels, batch_size), epochs=2)
    epoch, model, _ = epoch_graph(DeviceBatches(images, labels, batch_size))
    assert losses_of(model, epoch.step, epoch, epochs=2) == expected
    assert same(model.parameters(), eager.parameters())


def test_a_graph_of_an_epoch_amid_a_training_goes_on_with_its_momentum(make_batches, plain):
    model, batches = make_model(16), make_batches()
    optimizer = sgd(model)
    eager = make_step(model, optimizer)
    first = losses_of(model, eager, batches, epochs=1)
    epoch = EpochGraph(eager, model, optimizer, batches, **FAKES)
    second = losses_of(model, epoch.step, epoch, epochs=1)
    assert first + second == plain[1] and same(model.parameters(), plain[0])


def test_an_epoch_is_recorded_once_and_replayed_once_a_pass(make_batches):
    events = []

    def noted(function):
        events.append("record")
        return lambda: events.append("replay") or function()

    epoch, model, _ = epoch_graph(make_batches(), record=noted)
    assert events == []
    losses_of(model, epoch.step, epoch, epochs=3)
    assert events == ["record", "replay", "replay", "replay"]


def test_a_pass_yields_the_indices_of_its_batches(make_batches):
    epoch, _, _ = epoch_graph(make_batches())
    order = make_batches().order
    for _ in range(2):
        found = [images for images, labels in epoch if labels is images]
        assert [len(index) for index in found] == [64] * 5 + [20] and same(found, order.draw())


def test_a_later_pass_does_not_overwrite_the_losses_of_an_earlier_one(make_batches, plain):
    epoch, _, _ = epoch_graph(make_batches())
    first, second = ([epoch.step(*batch) for batch in epoch] for _ in range(2))
    assert [loss.item() for loss in first] == plain[1][0]
    assert [loss.item() for loss in second] == plain[1][1]
    assert all(loss.dim() == 0 and not loss.requires_grad for loss in first)


def test_a_pass_that_is_broken_off_has_been_trained_on_whole(make_batches, plain):
    epoch, model, _ = epoch_graph(make_batches())
    for _ in epoch:
        break
    assert losses_of(model, epoch.step, epoch, epochs=1) == plain[1][1:]
    assert same(model.parameters(), plain[0])


def test_a_learning_rate_changed_between_two_passes_is_refused(make_batches):
    epoch, model, optimizer = epoch_graph(make_batches())
    losses_of(model, epoch.step, epoch, epochs=1)
    before = weights_of(model)
    optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(ValueError, match=r"changed after the capture \(lr from 0.01 to 0.5\)"):
        losses_of(model, epoch.step, epoch, epochs=1)
    assert same(model.parameters(), before)


# On a GPU


@pytest.fixture
def cuda():
    return torch.device("cuda")


fused_or_not = pytest.mark.parametrize("options", [{}, {"fused": True}], ids=["default", "fused"])


def train_an_epoch(mnist, device, how, options, epochs=1):
    """The losses of the whole training set, 469 batches per pass: the plain step, captured steps or whole graphs."""
    model, batches = make_model(device=device), DeviceBatches(*mnist, device=device)
    optimizer = sgd(model, **options)
    step = make_step(model, optimizer)
    if how == "step":
        step = capture(step, model, optimizer)
    if how == "epoch":
        batches = EpochGraph(step, model, optimizer, batches)
        step = batches.step
    return torch.tensor(losses_of(model, step, batches, epochs))


@pytest.mark.gpu
@pytest.mark.cuda
@pytest.mark.parametrize("how", ["step", "epoch"])
@fused_or_not
def test_graphs_on_the_gpu_give_the_losses_of_the_plain_loop(cuda, mnist, how, options):
    expected = train_an_epoch(mnist, cuda, "plain", options, epochs=2)
    found = train_an_epoch(mnist, cuda, how, options, epochs=2)
    assert found.shape == (2, 469)
    assert_same_losses(found[0], expected[0])
    assert (found - expected).abs().max() < 0.05  # in the second epoch more flips have come together


@pytest.mark.gpu
@pytest.mark.cuda
@fused_or_not
def test_the_first_captured_step_on_the_gpu_starts_from_the_given_weights(cuda, mnist, options):
    batch = next(iter(DeviceBatches(*mnist, device=cuda)))
    plain_model, model = make_model(device=cuda), make_model(device=cuda)
    optimizer = sgd(model, **options)
    expected = make_step(plain_model, sgd(plain_model, **options))(*batch)
    loss = capture(make_step(model, optimizer), model, optimizer)(*batch)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for ours, theirs, start in zip(
        model.parameters(), plain_model.parameters(), make_model(device=cuda).parameters(), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-6) and not torch.equal(ours, start)


@pytest.mark.gpu
@pytest.mark.cuda
def test_losses_on_the_gpu_are_not_overwritten_by_later_replays(cuda, mnist):
    losses = []
    for how in (lambda step, *_: step, capture):
        model = make_model(device=cuda)
        optimizer = sgd(model)
        step = how(make_step(model, optimizer), model, optimizer)
        kept = [step(*batch) for batch in DeviceBatches(mnist[0][:2560], mnist[1][:2560], device=cuda)]
        losses.append([loss.item() for loss in kept])
    assert_same_losses(losses[1], losses[0])
    assert losses[0][-1] < losses[0][0] - 0.1  # so a loss that was overwritten would be seen


@pytest.mark.gpu
@pytest.mark.cuda
def test_a_capture_on_the_gpu_leaves_the_random_numbers(cuda, mnist):
    model = make_model(device=cuda)
    optimizer = sgd(model)
    torch.cuda.manual_seed(1)
    expected = torch.rand(3, device=cuda)
    torch.cuda.manual_seed(1)
    capture(make_step(model, optimizer), model, optimizer)(*next(iter(DeviceBatches(*mnist, device=cuda))))
    assert torch.equal(torch.rand(3, device=cuda), expected)
