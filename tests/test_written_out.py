import pytest
import torch
from agreement import assert_same_losses

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster import written_out
from mnist_gpu.faster.written_out import make_written_out_step
from mnist_gpu.model import make_model
from mnist_gpu.torch_private import onednn_missing
from mnist_gpu.training import make_step, train

with_onednn = pytest.param(True, marks=pytest.mark.skipif(bool(onednn_missing()), reason=str(onednn_missing())))
both = pytest.mark.parametrize("onednn", [False, with_onednn], ids=["torch", "oneDNN"])


@pytest.fixture
def batches(mnist):
    """Nineteen batches of 64 and one of 24."""
    return DeviceBatches(mnist[0][:1240], mnist[1][:1240], batch_size=64, seed=None)


def losses_of(model, step, batches, epochs=1):
    history = train(model, step, batches, epochs=epochs, log=lambda *line: None)
    return [loss for epoch in history for loss in epoch.losses]


def assert_same_weights(a, b):
    for (name, ours), (theirs_name, theirs) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == theirs_name and torch.allclose(ours, theirs, atol=1e-3)


@both
@pytest.mark.parametrize(
    ("hidden", "lr", "momentum", "epochs"),
    [(128, 0.01, 0.9, 2), (17, 0.05, 0.5, 1), (1, 0.01, 0.9, 1), (200, 0.02, 0.0, 1)],
)
def test_it_trains_the_models_own_parameters_as_the_plain_step_does(batches, onednn, hidden, lr, momentum, epochs):
    """Two epochs, since the momentum has to go on after the smaller last batch."""
    ours, theirs = make_model(hidden), make_model(hidden)
    parameters = list(ours.parameters())
    step = make_written_out_step(ours, lr=lr, momentum=momentum, onednn=onednn)
    plain = make_step(theirs, torch.optim.SGD(theirs.parameters(), lr=lr, momentum=momentum))
    losses, expected = losses_of(ours, step, batches, epochs), losses_of(theirs, plain, batches, epochs)
    assert len(losses) == 20 * epochs and losses[-2] < losses[0] - 0.01  # it learns, so the comparison means something
    assert_same_losses(losses, expected)
    assert_same_weights(ours, theirs)
    assert all(now is then and now.requires_grad for now, then in zip(ours.parameters(), parameters, strict=True))
    again = make_written_out_step(ours, onednn=onednn)  # goes on from the weights that a model has
    images, labels = next(iter(batches))
    expected = torch.nn.functional.cross_entropy(ours(images), labels).item()
    assert again(images, labels).item() == pytest.approx(expected, abs=1e-5)


@both
def test_every_loss_is_a_fresh_detached_scalar_and_the_batch_stays_as_it_was(batches, onednn):
    step = make_written_out_step(make_model(), onednn=onednn)
    images, labels = next(iter(batches))
    images_before, labels_before = images.clone(), labels.clone()
    first = step(images, labels)
    kept, second = first.item(), step(images, labels)
    assert first.dim() == 0 and not first.requires_grad and first.dtype == torch.float32
    assert first.item() == kept > second.item()
    assert torch.equal(images, images_before) and torch.equal(labels, labels_before)


def test_what_it_cannot_train_is_named(batches, monkeypatch):
    for lr in (0, float("nan"), True):
        with pytest.raises(ValueError, match=f"lr is {lr!r}"):
            make_written_out_step(make_model(4), lr=lr)
    for model in (make_model(4, device="meta"), make_model(4).double()):
        with pytest.raises(ValueError, match=r"must be torch.float32 on 'cpu'"):
            make_written_out_step(model)
    monkeypatch.setattr(written_out, "onednn_missing", lambda: "there is none")
    monkeypatch.setattr(written_out, "onednn_product", lambda a, b: pytest.fail("it was used"))
    with pytest.raises(ValueError, match="there is none"):
        make_written_out_step(make_model(4), onednn=True)
    losses_of(model := make_model(4), make_written_out_step(model), batches)  # the plain products need none
