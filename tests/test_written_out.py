import pytest
import torch
from agreement import assert_same_losses, losses_of

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.written_out import make_written_out_step
from mnist_gpu.model import make_model
from mnist_gpu.torch_private import onednn_missing
from mnist_gpu.training import make_step

with_onednn = pytest.param(True, marks=pytest.mark.skipif(bool(onednn_missing()), reason=str(onednn_missing())))
SIZES = [(128, 0.01, 0.9), (17, 0.05, 0.5), (1, 0.01, 0.9), (200, 0.02, 0.0)]


def assert_trained_as_plainly(model, parameters, losses, batches, hidden, lr, momentum):
    """Two epochs, since the momentum has to go on after the smaller last batch."""
    theirs = make_model(hidden)
    plain = make_step(theirs, torch.optim.SGD(theirs.parameters(), lr=lr, momentum=momentum))
    assert_same_losses(losses, losses_of(theirs, plain, batches, epochs=2))
    assert losses[-2] < losses[0] - 0.01  # it learns, so the comparison means something
    for ours, then, other in zip(model.parameters(), parameters, theirs.parameters(), strict=True):
        assert ours is then and ours.requires_grad and torch.allclose(ours, other, atol=1e-3)


@pytest.mark.parametrize("onednn", [False, with_onednn], ids=["torch", "oneDNN"])
@pytest.mark.parametrize(("hidden", "lr", "momentum"), SIZES)
def test_it_trains_the_models_own_parameters_as_the_plain_step_does(mnist, onednn, hidden, lr, momentum):
    batches = DeviceBatches(mnist[0][:1240], mnist[1][:1240], batch_size=64, seed=None)  # 19 of 64 and one of 24
    model = make_model(hidden)
    parameters = list(model.parameters())
    losses = losses_of(model, make_written_out_step(model, lr=lr, momentum=momentum, onednn=onednn), batches, epochs=2)
    assert_trained_as_plainly(model, parameters, losses, batches, hidden, lr, momentum)
    step = make_written_out_step(model, lr=0.05, onednn=onednn)  # goes on from the weights that a model has
    images, labels = batch = next(iter(batches))
    expected, before = torch.nn.functional.cross_entropy(model(images), labels).item(), images.clone()
    first = step(*batch)
    kept, second = first.item(), step(*batch)
    assert kept == pytest.approx(expected, abs=1e-5) and first.dim() == 0 and not first.requires_grad
    assert first.item() == kept > second.item() and torch.equal(images, before)  # of its own memory
