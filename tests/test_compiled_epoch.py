import pytest
import torch
from agreement import losses_of
from test_written_out import SIZES, assert_trained_as_plainly

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster import compiled_epoch
from mnist_gpu.faster.compiled_epoch import UNROLLED, CompiledEpoch
from mnist_gpu.faster.ladder import rungs
from mnist_gpu.faster.products import usable_products
from mnist_gpu.measuring.workloads import First
from mnist_gpu.model import make_model

HERE = usable_products()
NO_COMPILER = rungs(["compiled epoch"])[0].missing(torch.device("cpu"))


@pytest.fixture
def batches(mnist):
    """Ten batches of 64, of which the compiled loop takes eight, and one of 24; in an order of their own every pass."""
    return lambda: DeviceBatches(mnist[0][:664], mnist[1][:664], batch_size=64, seed=5)


@pytest.fixture
def steps_of(monkeypatch):
    """How many steps each call of the compiled program takes, which here is not compiled."""
    calls = []

    def scan(body, state, batches):
        calls.append(batches.shape)
        losses = []
        for few in batches:
            state, found = body(state, few)
            losses.append(found)
        return state, torch.stack(losses)

    monkeypatch.setattr(compiled_epoch, "scan", scan)
    monkeypatch.setattr(compiled_epoch, "compiled", lambda: compiled_epoch.many_steps)
    return calls


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize(("hidden", "lr", "momentum"), SIZES[1:])
def test_it_trains_the_models_own_parameters_as_the_plain_loop_does(batches, steps_of, name, hidden, lr, momentum):
    model = make_model(hidden)
    parameters = list(model.parameters())
    epoch = CompiledEpoch(model, batches(), lr=lr, momentum=momentum, products=name)
    losses = losses_of(model, epoch.step, epoch, epochs=2)
    assert epoch.products == name and steps_of == [(2, UNROLLED, 64)] * 2
    assert_trained_as_plainly(model, parameters, losses, batches(), hidden, lr, momentum)
    images, labels = next(iter(batches()))  # a new epoch goes on from what the model has
    expected = torch.nn.functional.cross_entropy(model(images), labels).item()
    first = CompiledEpoch(model, batches(), products=name).run(batches().order.draw())[0]
    assert first.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.skipif(bool(NO_COMPILER), reason=str(NO_COMPILER))
def test_compiled_it_is_the_same_training(batches):
    """By oneDNN where there is one, since only its operator is our own."""
    epoch = CompiledEpoch(model := make_model(), batches(), products=HERE[-1])
    losses = losses_of(model, epoch.step, epoch, epochs=2)
    assert_trained_as_plainly(model, model.parameters(), losses, batches(), *SIZES[0])
    again = CompiledEpoch(another := make_model(), batches(), products=epoch.products)  # does not compile again
    assert losses_of(another, again.step, again, epochs=2) == losses


def test_without_names_the_products_are_measured(batches, monkeypatch):
    chosen = HERE[-1]
    monkeypatch.setattr(compiled_epoch, "fastest_products", lambda hidden: chosen if hidden == 8 else None)
    assert CompiledEpoch(make_model(8), batches()).products is chosen


@pytest.mark.parametrize("name", HERE)
def test_the_state_has_the_strides_that_a_step_returns(batches, name):
    """Or the compiled loop refuses it: [1, 784] transposed counts as contiguous with other strides."""
    epoch = CompiledEpoch(make_model(1), batches(), products=name)
    after, _ = compiled_epoch.training_step(name, epoch.data, epoch.state, torch.arange(64), 0.01, 0.9)
    assert [t.stride() for t in epoch.state] == [t.stride() for t in after]


def test_a_part_of_an_epoch_is_its_first_steps_and_images_and_labels_stay(batches, steps_of):
    ours, kept, found = batches(), batches(), {}
    for steps in (1, 5, 9, 11):
        ours.order = batches().order
        epoch = CompiledEpoch(model := make_model(8), ours, products=HERE[0])
        found[steps] = losses_of(model, epoch.step, First(epoch, steps))
    assert all(losses == pytest.approx(found[11][:steps], abs=1e-4) for steps, losses in found.items())
    assert steps_of == [(1, UNROLLED, 64), (2, UNROLLED, 64), (2, UNROLLED, 64)]
    assert torch.equal(ours.images, kept.images) and torch.equal(ours.labels, kept.labels)
