import pytest
import torch
from agreement import assert_same_losses

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.ensemble import make_ensemble_step
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step


@pytest.fixture
def batches(mnist):
    """Nine batches of 32 and one of 12."""
    return list(DeviceBatches(mnist[0][:300], mnist[1][:300], batch_size=32))


def alone(model, batches, **options):
    """The losses of a network trained by the plain step."""
    step = make_step(model, torch.optim.SGD(model.parameters(), **options))
    return torch.stack([step(*batch) for batch in batches])


@pytest.mark.parametrize(
    ("hidden", "options"), [(16, {"lr": 0.01, "momentum": 0.9}), (5, {"lr": 0.02, "momentum": 0.5})]
)
def test_every_network_gets_the_losses_and_weights_that_it_gets_alone(batches, hidden, options):
    models = [make_model(hidden, seed=i) for i in range(3)]
    step = make_ensemble_step(models, **options)
    losses = torch.stack([step(*batch) for batch in batches])
    assert losses.shape == (10, 3) and losses[-1].mean() < losses[0].mean() - 0.05
    for i, model in enumerate(models):
        assert_same_losses(losses[:, i], alone(model, batches, **options))
        assert {name: w.shape[1:] for name, w in step.weights.items()} == {
            name: p.shape for name, p in model.named_parameters()
        }
        for name, parameter in model.named_parameters():
            assert torch.allclose(step.weights[name][i], parameter, atol=1e-3)
    assert not torch.allclose(losses[:, 0], losses[:, 1], atol=1e-2)  # they are different networks


def test_the_course_trains_at_001_with_momentum_09_unless_told_otherwise(batches):
    step = make_ensemble_step([make_model(16)])
    losses = torch.stack([step(*batch) for batch in batches])
    assert_same_losses(losses[:, 0], alone(make_model(16), batches, lr=0.01, momentum=0.9))


def test_the_models_stay_as_they_are(batches):
    models = [make_model(16, seed=i) for i in range(2)]
    step = make_ensemble_step(models)
    for batch in batches[:2]:
        step(*batch)
    for i, model in enumerate(models):
        for now, then in zip(model.parameters(), make_model(16, seed=i).parameters(), strict=True):
            assert torch.equal(now, then) and now.grad is None
        assert not torch.equal(step.weights["hidden.weight"][i], model.hidden.weight)


def test_the_losses_are_fresh_and_detached(batches):
    step = make_ensemble_step([make_model(16)] * 2)
    first = step(*batches[0])
    kept = first.clone()
    second = step(*batches[0])
    assert first.shape == (2,) and not first.requires_grad and not step.weights["hidden.weight"].requires_grad
    assert torch.equal(first, kept) and (second < first).all()


def test_an_ensemble_needs_a_model():
    with pytest.raises(ValueError, match="models is 0, but must be a whole number of at least 1"):
        make_ensemble_step([])


@pytest.mark.parametrize("lr", [0, -0.01, float("nan"), float("inf"), "fast"])
def test_a_bad_learning_rate_is_named(lr):
    with pytest.raises(ValueError, match=f"lr is {lr!r}, but must be a number greater than 0"):
        make_ensemble_step([make_model(16)], lr=lr)


# On a GPU


@pytest.mark.gpu
def test_an_ensemble_on_the_gpu_gives_the_losses_of_the_cpu(gpu, batches):
    here = make_ensemble_step([make_model(16, seed=i) for i in range(3)])
    there = make_ensemble_step([make_model(16, seed=i, device=gpu) for i in range(3)])
    for images, labels in batches:
        assert torch.allclose(there(images.to(gpu), labels.to(gpu)).cpu(), here(images, labels), atol=1e-4)
