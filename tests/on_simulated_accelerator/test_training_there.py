"""The package on the simulated accelerator: right results, no wait too many, nothing on the wrong card."""

import pytest
import simulated_accelerator as sim
import torch
from agreement import losses_of, silent

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.ladder import sgd, waiting
from mnist_gpu.measuring.prediction import kernels
from mnist_gpu.model import make_model
from mnist_gpu.training import evaluate, make_step, train

pytestmark = pytest.mark.gpu


@pytest.fixture
def small(mnist):
    """Ten batches of 64, as arguments of a pipeline."""
    return mnist[0][:640], mnist[1][:640], 64


def training(batches, device="sim", **options):
    model = make_model(16, device=device)
    return model, make_step(model, sgd(model, **options)), batches


# Pipelines


def test_the_device_pipeline_copies_the_order_once_a_pass_and_nothing_else(small):
    batches = DeviceBatches(*small, device="sim")
    assert sim.launches()["copy from the host"] == 2  # images and labels, once and for all
    sim.reset()
    for passes in (1, 2):
        assert len(list(batches)) == 10
        assert sim.launches()["copy from the host"] == passes
        assert sim.waits() == {"blocking copy from the host": passes}


# Training


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=str)
@pytest.mark.parametrize("card", ["sim:0", "sim:1"])
def test_losses_and_evaluation_are_the_cpus_and_another_card_is_left_alone(small, card, options):
    other = "sim:1" if card == "sim:0" else "sim:0"
    before, found = torch.accelerator.get_memory_info(other), []
    for device in ("cpu", card):
        batches = DeviceBatches(*small, device=device)
        model, step, _ = training(batches, device, **options)
        found.append((losses_of(model, step, batches, epochs=2), evaluate(model, batches)))
    assert found[0] == found[1]  # its operations are the CPU's, so not a bit may differ
    assert {p.grad.device for p in model.parameters()} == {torch.device(card)}
    assert sim.launches(card).total() > 100 and sim.synchronizations(card) == 4
    assert not sim.launches(other) and sim.synchronizations(other) == 0
    assert torch.accelerator.get_memory_info(other) == before


@pytest.mark.parametrize("through", [lambda step: step, waiting], ids=["plain", "waiting"])
def test_a_step_never_waits_unless_it_is_told_to(small, through):
    batch = next(iter(DeviceBatches(*small, device="sim")))
    step = through(training(None)[1])
    sim.reset()
    for _ in range(50):
        step(*batch)
    assert sim.waits() == ({} if through is not waiting else {"item": 50}) and sim.synchronizations() == 0
    assert sim.launches().total() >= 50 * 10  # it did launch something


def test_a_batch_and_its_step_launch_as_many_kernels_as_the_predictions_count(small):
    """They count operations on the CPU. With the fused optimizer: here there is none for many tensors at once."""
    _, step, pipeline = training(DeviceBatches(*small, device="sim"), fused=True)
    made = iter(pipeline)
    step(*next(made))
    sim.reset()
    step(*next(made))
    assert sim.launches().total() == kernels(fused=True, batches=True).low


@pytest.mark.parametrize(("epochs", "log_every", "points"), [(1, 100, 0), (3, 4, 2)])
def test_training_waits_once_a_log_point_and_at_the_ends_of_an_epoch(small, epochs, log_every, points):
    model, step, batches = training(DeviceBatches(*small, device="sim"))
    sim.reset()
    train(model, step, batches, epochs=epochs, log_every=log_every, log=silent)
    assert sim.waits() == {
        "blocking copy from the host": epochs,  # the order of the images, at the start of a pass
        "item": epochs * (points + 1),  # every log point's mean; at the end the whole epoch's, to see that it is finite
        "copy to the host": epochs,  # all losses of the epoch
    }
    assert sim.synchronizations() == 2 * epochs  # before each reading of the clock
    sim.reset()
    evaluate(model, batches)
    assert sim.waits() == {"blocking copy from the host": 1, "item": 2}  # the order; loss and right answers
