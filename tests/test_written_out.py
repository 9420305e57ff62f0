import pytest
import torch
from agreement import assert_same_losses

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster import written_out
from mnist_gpu.faster.products import onednn_missing
from mnist_gpu.faster.written_out import make_written_out_step
from mnist_gpu.model import make_model
from mnist_gpu.training import evaluate, make_step, train

with_onednn = pytest.param(True, marks=pytest.mark.skipif(bool(onednn_missing()), reason=str(onednn_missing())))
both = pytest.mark.parametrize("onednn", [False, with_onednn], ids=["torch", "oneDNN"])


@pytest.fixture
def batches(mnist):
    """Nineteen batches of 64 and one of 24."""
    return DeviceBatches(mnist[0][:1240], mnist[1][:1240], batch_size=64, seed=None)


def trained_plainly(batches, hidden=128, lr=0.01, momentum=0.9, epochs=1):
    """The plain loop's model and losses."""
    model = make_model(hidden)
    step = make_step(model, torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum))
    return model, losses_of(model, step, batches, epochs)


def losses_of(model, step, batches, epochs=1):
    history = train(model, step, batches, epochs=epochs, log=lambda *line: None)
    return [loss for epoch in history for loss in epoch.losses]


def assert_same_weights(a, b):
    for (name, ours), (theirs_name, theirs) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == theirs_name and torch.allclose(ours, theirs, atol=1e-3)


@both
@pytest.mark.parametrize(
    ("hidden", "lr", "momentum"), [(128, 0.01, 0.9), (17, 0.05, 0.5), (1, 0.01, 0.9), (200, 0.02, 0.0)]
)
def test_it_gives_the_losses_and_weights_of_the_plain_step(batches, onednn, hidden, lr, momentum):
    model = make_model(hidden)
    step = make_written_out_step(model, lr=lr, momentum=momentum, onednn=onednn)
    theirs, expected = trained_plainly(batches, hidden, lr, momentum)
    losses = losses_of(model, step, batches)
    assert len(losses) == 20
    assert_same_losses(losses, expected)
    assert losses[-2] < losses[0] - 0.01  # it learns, so the comparison means something
    assert_same_weights(model, theirs)


@both
def test_the_momentum_goes_on_after_the_smaller_last_batch(batches, onednn):
    model = make_model()
    step = make_written_out_step(model, onednn=onednn)  # 0.01 and 0.9, as everywhere in the course
    theirs, expected = trained_plainly(batches, epochs=2)
    assert_same_losses(losses_of(model, step, batches, epochs=2), expected)
    assert_same_weights(model, theirs)


def test_it_goes_on_from_the_weights_that_a_model_has(batches):
    model, _ = trained_plainly(batches)
    (images, labels), step = next(iter(batches)), make_written_out_step(model)
    expected = torch.nn.functional.cross_entropy(model(images), labels).item()
    assert step(images, labels).item() == pytest.approx(expected, abs=1e-6)


@both
def test_the_models_own_parameters_are_trained(batches, onednn):
    model, before = make_model(), make_model().state_dict()
    parameters = list(model.parameters())
    step = make_written_out_step(model, onednn=onednn)
    losses_of(model, step, batches)
    theirs, _ = trained_plainly(batches)
    assert all(now is then for now, then in zip(model.parameters(), parameters, strict=True))
    assert all(isinstance(p, torch.nn.Parameter) and p.requires_grad for p in parameters)
    assert not any(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    found, expected = evaluate(model, batches), evaluate(theirs, batches)
    assert found.loss == pytest.approx(expected.loss, abs=1e-3)
    assert found.accuracy == pytest.approx(expected.accuracy, abs=0.005) and found.accuracy > 0.5


@both
def test_every_loss_is_a_fresh_detached_scalar(batches, onednn):
    step = make_written_out_step(make_model(), onednn=onednn)
    images, labels = next(iter(batches))
    first = step(images, labels)
    kept = first.item()
    second = step(images, labels)
    assert first.dim() == 0 and not first.requires_grad and first.dtype == torch.float32
    assert first.item() == kept > second.item()


@both
def test_the_batch_is_left_as_it_was(batches, onednn):
    images, labels = next(iter(batches))
    kept = images.clone(), labels.clone()
    make_written_out_step(make_model(), onednn=onednn)(images, labels)
    assert torch.equal(images, kept[0]) and torch.equal(labels, kept[1])


# What goes wrong


@pytest.mark.parametrize("lr", [0, -0.01, float("nan"), float("inf"), True])
def test_a_bad_learning_rate_is_named(lr):
    with pytest.raises(ValueError, match=f"lr is {lr!r}, but must be a number greater than 0"):
        make_written_out_step(make_model(), lr=lr)


@pytest.mark.parametrize("model", [make_model(4, device="meta"), make_model(4).double()], ids=["device", "dtype"])
def test_a_model_elsewhere_or_in_another_precision_is_refused(model):
    with pytest.raises(ValueError, match="a float32 model on the CPU"):
        make_written_out_step(model)


def test_onednn_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(written_out, "onednn_missing", lambda: "there is none")
    with pytest.raises(ValueError, match="there is none"):
        make_written_out_step(make_model(4), onednn=True)


def test_the_plain_products_need_no_onednn(batches, monkeypatch):
    monkeypatch.setattr(written_out, "onednn_missing", lambda: "there is none")
    monkeypatch.setattr(written_out, "onednn_product", lambda a, b: pytest.fail("it was used"))
    losses_of(model := make_model(4), make_written_out_step(model), batches)
