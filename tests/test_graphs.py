import gc
import weakref

import pytest
import torch
from agreement import assert_same_losses, losses_of
from recorded import REFUSED

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster import graphs
from mnist_gpu.faster.graphs import WARMUP, EpochGraph, capture, record
from mnist_gpu.faster.ladder import sgd, waiting
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

steps_and_epochs = pytest.mark.parametrize("how", ["step", "epoch"])


def captured(how, model, optimizer, batches):
    """(step, batches) for the loop: the plain ones, captured steps, or whole epochs."""
    step = make_step(model, optimizer)
    if how == "epoch":
        epoch = EpochGraph(step, model, optimizer, batches)
        return epoch.step, epoch
    return capture(step, model, optimizer) if how == "step" else step, batches


def weights_of(model):
    return [p.detach().clone() for p in model.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def make_batches(mnist, cuda_graphs):
    """Five batches of 64 and one of 20, in a new order every pass; each call begins with the first pass.

    With it come graphs that are recorded on the CPU.
    """
    return lambda size=64: DeviceBatches(mnist[0][:340], mnist[1][:340], batch_size=size)


@pytest.fixture
def plain(make_batches):
    """What the plain loop gives in two epochs: weights and losses."""
    model = make_model(16)
    losses = losses_of(model, make_step(model, sgd(model)), make_batches(), epochs=2)
    return weights_of(model), losses


def test_the_gradients_of_the_warm_up_are_gone_before_the_recording_and_those_of_the_recording_after_it(
    make_batches, monkeypatch
):
    """The first would be written to from a graph; the second would hold memory that only the graph uses."""
    model = make_model(16)
    gone = []

    def record(once, warm_up):
        warm_up()
        gone.append(all(p.grad is None for p in model.parameters()))
        once()
        return lambda: None

    monkeypatch.setattr(graphs, "record", record)
    step = capture(make_step(model, optimizer := sgd(model)), model, optimizer)
    step(*next(iter(make_batches())))
    assert gone == [True] and all(p.grad is None for p in model.parameters())


# Recording


def test_a_replay_makes_as_many_calls_as_were_recorded_and_keeps_the_tensors_that_they_use(cuda_graphs):
    x, y = torch.zeros(2)

    def add():
        return x.add_(1)

    kept, replay = weakref.ref(add), record(add, calls=20, warm_up=lambda: y.add_(1))
    del add
    gc.collect()
    before = x.item()
    assert y == WARMUP and kept() is not None
    replay()
    assert x == before + 20 and y == WARMUP
    del replay
    gc.collect()
    assert kept() is None


@steps_and_epochs
def test_a_graph_goes_with_the_last_that_refers_to_it(make_batches, collector, how):
    """In a cycle it would stay until a collection, which may come while torch.compile records a graph of its own."""
    collector.collect()
    collector.disable()
    model = make_model(16)
    step, batches = captured(how, model, sgd(model), make_batches())
    kept = weakref.ref(step if how == "step" else batches)
    losses_of(model, step, batches)
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


def test_nothing_is_collected_while_a_graph_is_recorded(cuda_graphs, collector):
    """What is collected may be another graph, which CUDA does not let go meanwhile."""
    seen = []

    class Cycle:
        def __init__(self):
            self.me = self

        def __del__(self):
            seen.append(cuda_graphs.recording)

    def function():
        for _ in range(50):
            Cycle()

    record(function)
    assert collector.isenabled()
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
    with pytest.raises(RuntimeError, match=REFUSED):
        captured(*batch)
    assert cuda_graphs.current is cuda_graphs.default and gc.isenabled()
    assert same(model.parameters(), make_model(16).parameters())
    other = make_model(16)
    assert captured(*batch).item() == make_step(other, sgd(other))(*batch).item()  # a second try may be better


# Training


@steps_and_epochs
def test_graphs_train_as_the_plain_loop_with_a_smaller_last_batch_and_are_recorded_once(
    make_batches, plain, cuda_graphs, how
):
    model = make_model(16)
    step, batches = captured(how, model, sgd(model), make_batches())
    assert not cuda_graphs.recorded_in and len(batches) == 6
    assert losses_of(model, step, batches, epochs=2) == plain[1]  # none of which a later replay has overwritten
    assert same(model.parameters(), plain[0])
    assert len(cuda_graphs.recorded_in) == 1 and cuda_graphs.replays == {"step": 10, "epoch": 2}[how]


@steps_and_epochs
def test_a_capture_amid_a_training_goes_on_with_its_momentum(make_batches, plain, how):
    model, batches = make_model(16), make_batches()
    optimizer = sgd(model)
    first = losses_of(model, make_step(model, optimizer), batches)
    second = losses_of(model, *captured(how, model, optimizer, batches))
    assert first + second == plain[1] and same(model.parameters(), plain[0])


def test_a_batch_of_another_kind_gets_no_replay_but_pytorchs_error(make_batches, cuda_graphs):
    images, labels = next(iter(make_batches()))
    model = make_model(16)
    step = capture(make_step(model, optimizer := sgd(model)), model, optimizer)
    step(images, labels)
    before = weights_of(model)
    for wrong in ((images[:, :, :14], labels), (images.double(), labels), (images, labels[:9])):
        with pytest.raises((RuntimeError, ValueError)):
            step(*wrong)
    assert same(model.parameters(), before) and cuda_graphs.replays == 1


@steps_and_epochs
def test_a_learning_rate_may_change_until_the_capture_and_is_refused_afterwards(make_batches, how):
    found = []
    for each in ("plain", how):
        model = make_model(16)
        optimizer = sgd(model)
        step, batches = captured(each, model, optimizer, make_batches())
        optimizer.param_groups[0]["lr"] = 0.05
        found.append(losses_of(model, step, batches))
    assert found[0] == found[1]
    before = weights_of(model)
    optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(ValueError, match=r"lr from 0.05 to 0.5.*[Cc]apture again"):
        losses_of(model, step, batches)
    assert same(model.parameters(), before)


def test_a_pass_yields_the_indices_of_its_batches_and_has_trained_on_all_when_it_is_broken_off(make_batches, plain):
    model = make_model(16)
    step, epoch = captured("epoch", model, sgd(model), make_batches())
    for images, labels in epoch:
        assert labels is images and torch.equal(images, make_batches().order.draw()[0])
        break
    assert losses_of(model, step, epoch) == plain[1][6:] and same(model.parameters(), plain[0])


# On a GPU


@pytest.mark.gpu
@pytest.mark.cuda
def test_a_graph_on_the_gpu_outlives_others_and_the_clearing_of_workspaces(gpu, mnist):
    batches = list(DeviceBatches(mnist[0][:1280], mnist[1][:1280], device=gpu))
    models = [make_model(device=gpu) for _ in range(3)]
    hows = zip(["plain", "step", "step"], models, strict=True)
    plain, first, second = (captured(how, model, sgd(model), batches)[0] for how, model in hows)
    expected = [plain(*batch).item() for batch in batches]
    found = [[step(*batch).item() for batch in batches[:5]] for step in (first, second)][1]
    del first
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()  # as torch.compile does before and after it records a graph
    torch.cuda.empty_cache()
    kept = torch.full((64 * 2**20,), 7.0, device=gpu)  # takes what was given back
    found += [second(*batch).item() for batch in batches[5:]]
    assert_same_losses(found, expected)
    assert (kept == 7).all()
