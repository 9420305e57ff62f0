import gc
import subprocess
import sys
import weakref

import pytest
import torch
from agreement import assert_same_losses
from recorded import ENDED, REFUSED
from torch import nn

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.graphs import WARMUP, EpochGraph, capture, record, restored
from mnist_gpu.faster.ladder import waiting
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step, train


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
def make_batches(mnist, cuda_graphs):
    """Five batches of 64 and one of 20, in a new order every pass; each call begins with the first pass.

    With it come graphs that are recorded on the CPU.
    """
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


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.NAdam, torch.optim.Rprop, torch.optim.RMSprop])
def test_an_optimizer_whose_state_does_not_start_at_zero_is_refused_by_name(make_batches, make):
    model = make_model(16)
    optimizer = make(model.parameters(), lr=0.01)
    step, batch = make_step(model, optimizer), next(iter(make_batches()))
    with pytest.raises(ValueError, match=f"{make.__name__}.*SGD"):
        capture(step, model, optimizer)(*batch)
    assert same(model.parameters(), make_model(16).parameters()) and not optimizer.state


@pytest.mark.parametrize("cause", [RuntimeError("out of order"), KeyboardInterrupt()], ids=repr)
def test_if_restoring_fails_after_an_error_the_error_is_what_is_seen(cause):
    model = make_model(16)
    with pytest.raises(type(cause)) as caught, restored(model, sgd(model)):
        model.hidden.weight.data = torch.zeros(3)  # nothing can be copied back into it
        raise cause
    assert caught.value is cause and "size of tensor" in caught.value.__notes__[0]


def test_if_only_restoring_fails_that_is_the_error():
    model = make_model(16)
    with pytest.raises(RuntimeError, match="size of tensor"), restored(model, sgd(model)):
        model.hidden.weight.data = torch.zeros(3)


# Recording


def test_a_replay_makes_as_many_calls_as_were_recorded(cuda_graphs):
    x, y = torch.zeros(2)
    replay = record(lambda: x.add_(1), calls=20, warm_up=lambda: y.add_(1))
    before = x.item()
    assert y == WARMUP
    replay()
    assert x == before + 20 and y == WARMUP


def test_a_replay_keeps_the_tensors_that_its_function_uses(cuda_graphs):
    x = torch.zeros(())

    def add():
        return x.add_(1)

    kept, replay = weakref.ref(add), record(add)
    del add
    gc.collect()
    assert kept() is not None
    del replay
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("how", ["step", "epoch"])
def test_a_graph_goes_with_the_last_that_refers_to_it(make_batches, collector, how):
    """In a cycle it would stay until a collection, which may come while torch.compile records a graph of its own."""
    collector.collect()
    collector.disable()
    model = make_model(16)
    optimizer = sgd(model)
    step, batches = make_step(model, optimizer), make_batches()
    if how == "epoch":
        batches = EpochGraph(step, model, optimizer, batches)
        kept = weakref.ref(batches)
    else:
        step = capture(step, model, optimizer)
        kept = weakref.ref(step)
    losses_of(model, step if how == "step" else batches.step, batches, epochs=1)
    del step, batches
    assert kept() is None


@pytest.fixture
def collector():
    """The garbage collector, which runs at nearly every allocation."""
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    yield gc
    gc.set_threshold(*thresholds)
    gc.enable()


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_collected_while_a_graph_is_recorded(cuda_graphs, collector, enabled, fails):
    """What is collected may be another graph, which CUDA does not let go meanwhile."""
    seen, left = [], [torch.zeros(()) for _ in range(WARMUP)]

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            seen.append(cuda_graphs.recording)

    def function():
        for _ in range(50):
            Cycle()
        if not left:
            assert not fails, "in the recording"
        left[:] = left[1:]

    if not enabled:
        collector.disable()
    try:
        record(function)
    except AssertionError:
        assert fails
    assert collector.isenabled() == enabled
    collector.collect()
    assert len(seen) == 50 * (WARMUP + 1) and not any(seen)


def test_every_recording_has_a_stream_of_its_own_in_which_nothing_else_runs(cuda_graphs):
    """A graph has the address of its stream's cuBLAS workspace, which is then no other graph's, and no warm-up's."""
    x = torch.zeros(2)
    for _ in range(3):
        record(lambda: x.add_(1))
    streams = cuda_graphs.recorded_in
    assert len({*streams, cuda_graphs.default}) == 4 and not any(stream.used for stream in streams)


def test_what_ended_a_recording_is_what_is_seen_and_all_is_as_before(make_batches, cuda_graphs):
    """Its end fails, too, and PyTorch would leave its stream the current one."""
    batch = next(iter(make_batches()))
    model, calls = make_model(16), []
    optimizer = sgd(model)
    step = make_step(model, optimizer)

    def recorded(images, labels):
        calls.append(1)
        return (waiting(step) if len(calls) == WARMUP + 1 else step)(images, labels)

    captured = capture(recorded, model, optimizer)
    with pytest.raises(RuntimeError, match=REFUSED) as caught:
        captured(*batch)
    assert ENDED in caught.value.__notes__[0]
    assert cuda_graphs.current is cuda_graphs.default and gc.isenabled()
    assert same(model.parameters(), make_model(16).parameters())
    other = make_model(16)
    assert captured(*batch).item() == make_step(other, sgd(other))(*batch).item()  # a second try may be better


# A step


def test_captured_steps_train_as_the_plain_loop_with_a_smaller_last_batch(make_batches, plain):
    model = make_model(16)
    optimizer = sgd(model)
    step = capture(make_step(model, optimizer), model, optimizer)
    assert losses_of(model, step, make_batches()) == plain[1]
    assert same(model.parameters(), plain[0])
    assert [len(losses) for losses in plain[1]] == [6, 6]


def test_a_capture_amid_a_training_goes_on_with_its_momentum(make_batches, plain):
    model = make_model(16)
    optimizer = sgd(model)
    batches, eager = make_batches(), make_step(model, optimizer)
    first = losses_of(model, eager, batches, epochs=1)
    second = losses_of(model, capture(eager, model, optimizer), batches, epochs=1)
    assert first + second == plain[1] and same(model.parameters(), plain[0])


def test_a_capture_is_made_once_at_the_first_call(make_batches, cuda_graphs):
    model = make_model(16)
    optimizer = sgd(model)
    step = capture(make_step(model, optimizer), model, optimizer)
    assert not cuda_graphs.recorded_in
    losses_of(model, step, make_batches())
    assert len(cuda_graphs.recorded_in) == 1
    assert cuda_graphs.replays == 10  # the last batch of a pass is too small for the graph


def test_a_replay_reads_from_the_same_addresses_and_the_callers_batches_stay(make_batches):
    model, seen = make_model(16), []
    optimizer = sgd(model)
    plain_step = make_step(model, optimizer)

    def step(images, labels):
        seen.append((images.data_ptr(), labels.data_ptr()))
        return plain_step(images, labels)

    captured = capture(step, model, optimizer)
    given, untouched = list(make_batches()), list(make_batches())
    for batch in given:
        captured(*batch)
    assert len(set(seen[:-1])) == 1 and len(seen) == WARMUP + 1 + 1  # the last is too small for the graph
    assert all(same(a, b) for a, b in zip(given, untouched, strict=True))


def test_a_later_replay_does_not_overwrite_a_loss(make_batches):
    model, of_the_graph = make_model(16), torch.zeros(())
    optimizer = sgd(model)
    plain_step = make_step(model, optimizer)
    captured = capture(lambda *batch: of_the_graph.copy_(plain_step(*batch)), model, optimizer)
    losses = [captured(*batch) for batch in list(make_batches())[:5]]
    other = make_model(16)
    step = make_step(other, sgd(other))
    assert [loss.item() for loss in losses] == [step(*batch).item() for batch in list(make_batches())[:5]]
    assert all(loss.dim() == 0 and not loss.requires_grad for loss in losses)


def captured_on(batch, **options):
    model = make_model(16)
    optimizer = sgd(model, **options)
    step = capture(make_step(model, optimizer), model, optimizer)
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
    step = capture(make_step(model, optimizer), model, optimizer)
    optimizer.param_groups[0]["lr"] = 0.5
    step(*batch)
    make_step(other, sgd(other, lr=0.5))(*batch)
    assert same(model.parameters(), other.parameters())


def test_a_capture_with_dampening_is_refused_and_trains_nothing(make_batches):
    with pytest.raises(ValueError, match="dampening"):
        captured_on(next(iter(make_batches())), dampening=0.1)


def test_a_model_on_the_cpu_has_no_graphs(mnist):
    model = make_model(16)
    optimizer = sgd(model)
    step = make_step(model, optimizer)
    with pytest.raises(ValueError, match="the model is on 'cpu', but CUDA graphs need a CUDA device"):
        capture(step, model, optimizer)
    with pytest.raises(ValueError, match="the model is on 'cpu', but CUDA graphs need a CUDA device"):
        EpochGraph(step, model, optimizer, DeviceBatches(*mnist))


# An epoch


def epoch_graph(batches):
    model = make_model(16)
    optimizer = sgd(model)
    return EpochGraph(make_step(model, optimizer), model, optimizer, batches), model, optimizer


def test_a_graph_of_an_epoch_trains_as_the_plain_loop_with_a_smaller_last_batch(make_batches, plain):
    epoch, model, _ = epoch_graph(make_batches())
    history = train(model, epoch.step, epoch, epochs=2, log=lambda *line: None)
    assert [e.losses for e in history] == plain[1] and same(model.parameters(), plain[0])
    assert [e.images for e in history] == [340, 340] and len(epoch) == 6


@pytest.mark.parametrize("batch_size", [400, 340, 170])
def test_a_graph_of_an_epoch_may_have_one_batch_or_batches_of_one_size(mnist, cuda_graphs, batch_size):
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
    epoch = EpochGraph(eager, model, optimizer, batches)
    second = losses_of(model, epoch.step, epoch, epochs=1)
    assert first + second == plain[1] and same(model.parameters(), plain[0])


def test_an_epoch_is_recorded_once_and_replayed_once_a_pass(make_batches, cuda_graphs):
    epoch, model, _ = epoch_graph(make_batches())
    assert not cuda_graphs.recorded_in
    losses_of(model, epoch.step, epoch, epochs=3)
    assert len(cuda_graphs.recorded_in) == 1 and cuda_graphs.replays == 3


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
def test_a_replay_on_the_gpu_makes_as_many_calls_as_were_recorded(cuda):
    x = torch.zeros(1, device=cuda)
    replay = record(lambda: x.add_(1), calls=20)
    assert x.item() == WARMUP  # what is recorded is not done
    replay()
    assert x.item() == WARMUP + 20


@pytest.mark.gpu
@pytest.mark.cuda
def test_old_graphs_on_the_gpu_are_not_destroyed_while_a_new_one_is_recorded(cuda, collector):
    class Cycle:
        def __init__(self, replay):
            self.me, self.replay = self, replay

    x = torch.zeros(1, device=cuda)
    old = [record(lambda: x.add_(1)) for _ in range(5)]

    def function():
        while old:
            Cycle(old.pop())
        [Cycle(None) for _ in range(50)]
        x.add_(1)

    replay, before = record(function, warm_up=lambda: None), x.item()
    replay()
    assert x.item() == before + 1


@pytest.mark.gpu
@pytest.mark.cuda
def test_a_graph_on_the_gpu_outlives_others_and_the_clearing_of_workspaces(cuda, mnist):
    batches = list(DeviceBatches(mnist[0][:1280], mnist[1][:1280], device=cuda))

    def trained(how):
        model = make_model(device=cuda)
        optimizer = sgd(model)
        return how(make_step(model, optimizer), model, optimizer)

    plain, first, second = (trained(how) for how in (lambda step, *_: step, capture, capture))
    expected = [plain(*batch).item() for batch in batches]
    found = [[step(*batch).item() for batch in batches[:5]] for step in (first, second)][1]
    del first
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()  # as torch.compile does before and after it records a graph
    torch.cuda.empty_cache()
    kept = torch.full((64 * 2**20,), 7.0, device=cuda)  # takes what was given back
    found += [second(*batch).item() for batch in batches[5:]]
    assert_same_losses(found, expected)
    assert (kept == 7).all()


@pytest.mark.gpu
@pytest.mark.cuda
def test_a_recording_that_the_gpu_refuses_says_why_and_leaves_its_stream(cuda):
    """In a process of its own, since PyTorch may draw no random numbers after it."""
    code = (
        "import torch\nfrom mnist_gpu.faster.graphs import record\n"
        "x, stream = torch.ones(1, device='cuda'), torch.cuda.current_stream()\n"
        "try: record(x.item)\n"
        "except RuntimeError as error: print('captur' in str(error), torch.cuda.current_stream() == stream)\n"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["True", "True"]


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
