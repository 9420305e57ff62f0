import pytest
import torch
from agreement import assert_same_losses
from test_written_out import assert_same_weights, losses_of

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster import compiled_epoch
from mnist_gpu.faster.compiled_epoch import UNROLLED, CompiledEpoch
from mnist_gpu.faster.ladder import rungs
from mnist_gpu.faster.products import PRODUCTS, usable_products
from mnist_gpu.measuring.workloads import First
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

HERE = [p.name for p in usable_products()]
NO_COMPILER = rungs(["compiled epoch"])[0].missing(torch.device("cpu"))


@pytest.fixture
def batches(mnist):
    """Ten batches of 64, of which the compiled loop takes eight, and one of 24; in an order of their own every pass."""
    return lambda: DeviceBatches(mnist[0][:664], mnist[1][:664], batch_size=64, seed=5)


@pytest.fixture
def groups(monkeypatch):
    """How many steps each call of the compiled program takes, which here is not compiled."""
    calls = []

    def uncompiled(products, data, state, batches, *settings):
        calls.append(batches.shape)
        losses = []
        for few in batches:
            for index in few:
                after, loss = compiled_epoch.training_step(products, data, state, index, *settings)
                compiled_epoch.assign(state, after)
                losses.append(loss)
        return torch.stack(losses)

    monkeypatch.setattr(compiled_epoch, "compiled", lambda: uncompiled)
    return calls


def trained_plainly(batches, hidden, lr, momentum, epochs):
    model = make_model(hidden)
    step = make_step(model, torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum))
    return model, losses_of(model, step, batches, epochs)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize(("hidden", "lr", "momentum"), [(17, 0.05, 0.5), (1, 0.01, 0.9), (200, 0.02, 0.0)])
def test_it_gives_the_losses_and_weights_of_the_plain_loop(batches, groups, name, hidden, lr, momentum):
    model = make_model(hidden)
    epoch = CompiledEpoch(model, batches(), lr=lr, momentum=momentum, products=name)
    losses = losses_of(model, epoch.step, epoch, epochs=2)
    theirs, expected = trained_plainly(batches(), hidden, lr, momentum, epochs=2)
    assert len(losses) == 22 and epoch.products == PRODUCTS[name]
    assert_same_losses(losses, expected)
    assert sum(losses[-4:]) < sum(losses[:4]) - 0.03  # it learns, so the comparison means something
    assert_same_weights(model, theirs)
    assert groups == [(2, UNROLLED, 64)] * 2


@pytest.mark.skipif(bool(NO_COMPILER), reason=str(NO_COMPILER))
def test_compiled_it_is_the_same_training(batches):
    """By oneDNN where there is one, since only its operator is our own."""
    model = make_model()
    epoch = CompiledEpoch(model, batches(), products=HERE[2 % len(HERE)])
    losses = losses_of(model, epoch.step, epoch, epochs=2)
    theirs, expected = trained_plainly(batches(), 128, 0.01, 0.9, epochs=2)
    assert_same_losses(losses, expected)
    assert_same_weights(model, theirs)
    again = CompiledEpoch(another := make_model(), batches(), products=epoch.products.name)  # does not compile again
    assert losses_of(another, again.step, again, epochs=2) == losses
    assert all(map(torch.equal, another.state_dict().values(), model.state_dict().values()))


def test_without_names_the_products_are_measured(batches, groups, monkeypatch):
    chosen = PRODUCTS[HERE[-1]]
    monkeypatch.setattr(compiled_epoch, "fastest_products", lambda hidden: chosen if hidden == 8 else None)
    assert CompiledEpoch(make_model(8), batches()).products is chosen


@pytest.mark.parametrize("before", [None, *HERE])
@pytest.mark.parametrize("name", HERE)
def test_the_state_has_the_strides_that_a_step_returns(batches, name, before):
    """Or the compiled loop refuses it: [784, 1] transposed counts as contiguous with other strides."""
    model = make_model(1)
    if before:  # trained with weights in one layout before, perhaps now in the other
        CompiledEpoch(model, batches(), products=before)
    epoch = CompiledEpoch(model, batches(), products=name)
    after, _ = compiled_epoch.training_step(name, epoch.data, epoch.state, torch.arange(64), 0.01, 0.9)
    assert [t.stride() for t in epoch.state] == [t.stride() for t in after]
    assert [t.stride() for t in epoch.state] == [torch.empty(t.shape).stride() for t in epoch.state]


@pytest.mark.parametrize("name", HERE[:2])  # both layouts
def test_the_models_own_parameters_are_trained_and_loaded(batches, groups, name):
    model = make_model(8)
    parameters = list(model.parameters())
    epoch = CompiledEpoch(model, batches(), products=name)
    losses_of(model, epoch.step, epoch)
    assert all(now is then and now.requires_grad for now, then in zip(model.parameters(), parameters, strict=True))
    images, labels = next(iter(batches()))  # a new epoch goes on from what the model has
    expected = torch.nn.functional.cross_entropy(model(images), labels).item()
    first = next(iter(CompiledEpoch(model, batches(), products=name).run(batches().order.draw())))
    assert first.item() == pytest.approx(expected, abs=1e-5)


def test_a_part_of_an_epoch_is_its_first_steps_and_images_and_labels_stay(batches, groups):
    _, expected = trained_plainly(batches(), 8, 0.01, 0.9, epochs=1)
    ours, kept = batches(), batches()
    for steps in (1, 5, 9):
        model = make_model(8)
        ours.order = batches().order
        epoch = CompiledEpoch(model, ours, products=HERE[0])
        losses = losses_of(model, epoch.step, First(epoch, steps))
        assert len(losses) == steps and losses == pytest.approx(expected[:steps], abs=1e-4)
    assert groups == [(1, UNROLLED, 64), (2, UNROLLED, 64)]
    assert torch.equal(ours.images, kept.images) and torch.equal(ours.labels, kept.labels)


def test_what_it_cannot_train_is_named(batches):
    with pytest.raises(ValueError, match="lr is nan"):
        CompiledEpoch(make_model(4), batches(), lr=float("nan"))
    for model in (make_model(4, device="meta"), make_model(4).double()):
        with pytest.raises(ValueError, match=r"must be torch.float32 on 'cpu'"):
            CompiledEpoch(model, batches())
