"""The package on the simulated accelerator: right results, no wait too many, nothing on the wrong card."""

from itertools import islice

import pytest
import simulated_accelerator as sim
import torch

from mnist_gpu.data import PIPELINES, DeviceBatches, MemoryBatches, make_batches
from mnist_gpu.device import pick_device
from mnist_gpu.faster.ladder import sgd, waiting
from mnist_gpu.faster.prefetch import Prefetched
from mnist_gpu.measuring.prediction import kernels
from mnist_gpu.measuring.timing import alternate, measure
from mnist_gpu.measuring.workloads import First
from mnist_gpu.model import make_model
from mnist_gpu.training import evaluate, make_step, train

pytestmark = pytest.mark.gpu


def silent(epoch, i, loss):
    pass


@pytest.fixture
def small(mnist):
    """Ten batches of 64, as arguments of a pipeline."""
    return mnist[0][:640], mnist[1][:640], 64


def training(batches, device="sim", **options):
    model = make_model(16, device=device)
    return model, make_step(model, sgd(model, **options)), batches


def total(counts):
    return sum(counts.values())


# The network


def test_a_new_network_leaves_the_cards_random_numbers_as_they_were():
    torch.rand(3, device="sim")
    before = torch.sim.get_rng_state()
    make_model(4, device="sim")
    assert torch.equal(torch.sim.get_rng_state(), before)


# Pipelines


@pytest.mark.parametrize("kind", PIPELINES)
def test_a_pipeline_yields_the_cpus_batches(kind):
    there, here = make_batches(kind, train=False, device="sim"), make_batches(kind, train=False)
    for (images, labels), expected in islice(zip(there, here, strict=True), 10):
        assert images.device == labels.device == torch.device("sim:0")
        assert torch.equal(images.cpu(), expected[0]) and torch.equal(labels.cpu(), expected[1])


def test_the_device_pipeline_copies_the_order_once_a_pass_and_nothing_else(small):
    batches = DeviceBatches(*small, device="sim")
    assert sim.launches()["copy from the host"] == 2  # images and labels, once and for all
    sim.reset()
    for passes in (1, 2):
        assert len(list(batches)) == 10
        assert sim.launches()["copy from the host"] == passes
        assert sim.waits() == {"blocking copy from the host": passes}


def test_the_memory_pipeline_copies_images_and_labels_of_every_batch(small):
    batches = MemoryBatches(*small, device="sim")
    assert not sim.launches()
    list(batches)
    assert sim.waits() == {"blocking copy from the host": 2 * 10}


def test_prefetched_batches_are_copied_one_ahead_in_a_stream_of_their_own(small):
    plain = list(MemoryBatches(*small, device="sim"))
    sim.reset()
    for i, (images, labels) in enumerate(Prefetched(MemoryBatches(*small, device="sim"), "sim")):
        assert sim.aside()["copy from the host"] == 2 * min(i + 2, 10)  # this batch and the next
        assert sim.handovers() == i + 1
        assert torch.equal(images.cpu(), plain[i][0].cpu()) and torch.equal(labels.cpu(), plain[i][1].cpu())
    assert i + 1 == len(plain) == 10
    assert sim.launches()["copy from the host"] == sim.aside()["copy from the host"]
    sim.reset()
    torch.ones(1, device="sim")
    assert sim.launches() and not sim.aside()  # the default stream is the current one again


def test_every_pass_of_prefetched_batches_has_the_same_stream(small):
    """PyTorch keeps memory aside for each stream, so a new one every pass would hold more and more."""
    seen = []

    class Noting(MemoryBatches):
        def __iter__(self):
            seen.append(torch.accelerator.current_stream("sim"))
            return super().__iter__()

        def _batch(self, *args):
            seen.append(torch.accelerator.current_stream("sim"))
            return super()._batch(*args)

    batches = Prefetched(Noting(*small, device="sim"), "sim")
    default = torch.accelerator.current_stream("sim")
    for _ in range(3):
        assert len(list(batches)) == 10
    assert len({s.stream_id for s in seen if s != default}) == 1


# Training


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=str)
def test_losses_and_evaluation_are_the_cpus(small, options):
    found = []
    for device in ("cpu", "sim"):
        batches = DeviceBatches(*small, device=device)
        model, step, _ = training(batches, device, **options)
        history = train(model, step, batches, epochs=2, log=silent)
        found.append(([epoch.losses for epoch in history], evaluate(model, batches)))
    assert found[0] == found[1]  # its operations are the CPU's, so not a bit may differ


def test_a_step_never_waits(small):
    batch = next(iter(DeviceBatches(*small, device="sim")))
    _, step, _ = training(None)
    sim.reset()
    losses = [step(*batch) for _ in range(50)]
    assert not sim.waits() and sim.synchronizations() == 0
    assert sim.pending() == total(sim.launches()) >= 50 * 10  # it did launch something
    assert losses[-1].item() < losses[0].item()


def test_a_wait_in_the_step_is_seen(small):
    batch = next(iter(DeviceBatches(*small, device="sim")))
    _, step, _ = training(None)
    step = waiting(step)
    sim.reset()
    for _ in range(50):
        step(*batch)
    assert sim.waits() == {"item": 50}


@pytest.mark.parametrize("batches", [False, True])
def test_a_step_launches_as_many_kernels_as_the_predictions_count(small, batches):
    """They count operations on the CPU. With the fused optimizer: here there is none for many tensors at once."""
    _, step, pipeline = training(DeviceBatches(*small, device="sim"), fused=True)
    made = iter(pipeline)
    step(*next(made))
    sim.reset()
    batch = next(made)
    if not batches:
        sim.reset()
    step(*batch)
    assert total(sim.launches()) == kernels(fused=True, batches=batches).low


@pytest.mark.parametrize(("epochs", "log_every", "points"), [(1, 100, 0), (1, 5, 2), (3, 4, 2), (2, 1, 10)])
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


def test_evaluation_waits_only_when_it_is_done(small):
    model, _, batches = training(DeviceBatches(*small, device="sim"))
    sim.reset()
    evaluate(model, batches)
    assert sim.waits() == {"blocking copy from the host": 1, "item": 2}  # the order; loss and right answers


def test_labels_left_on_the_host_are_an_error(small):
    _, step, batches = training(DeviceBatches(*small, device="sim"))
    images, labels = next(iter(batches))
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        step(images, labels.cpu())


def test_training_on_the_second_card_leaves_the_first_alone(small):
    before = torch.accelerator.get_memory_info("sim:0")
    model, step, batches = training(DeviceBatches(*small, device="sim:1"), "sim:1", fused=True)
    train(model, step, batches, epochs=2, log=silent)
    evaluate(model, batches)
    assert not sim.launches("sim:0") and sim.synchronizations("sim:0") == 0
    assert torch.accelerator.get_memory_info("sim:0") == before
    assert total(sim.launches("sim:1")) > 100 and sim.synchronizations("sim:1") == 4
    assert {p.grad.device for p in model.parameters()} == {torch.device("sim:1")}


def test_a_batch_that_does_not_fit_names_what_is_free(small):
    model, _, batches = training(DeviceBatches(*small, device="sim"))

    def step(images, labels):
        return torch.empty(2**33, dtype=torch.float32, device="sim")

    with pytest.raises(torch.OutOfMemoryError, match="of card 0 are free") as caught:
        train(model, step, batches, log=silent)
    assert "Batch size 64" in caught.value.__notes__[0] and "of the device's 8192 MiB were free" in str(
        caught.value.__notes__[0]
    )


# Timing


def clock_on_an_idle_card():
    clock_on_an_idle_card.time += 1
    clock_on_an_idle_card.found.append(sim.pending())
    return clock_on_an_idle_card.time


@pytest.fixture
def pending_at():
    """What was pending whenever the clock was read."""
    clock_on_an_idle_card.time, clock_on_an_idle_card.found = 0.0, []
    return clock_on_an_idle_card.found


def test_alternate_reads_its_clock_with_nothing_pending(pending_at):
    x = torch.ones(8, 8, device="sim")
    sides = {"product": lambda: x @ x, "nothing": lambda: None}
    alternate(sides, rounds=3, device="sim", clock=clock_on_an_idle_card)
    assert pending_at == [0] * (2 * 2 * 3)  # two readings per call of either side
    assert sim.launches()["aten::mm"] == 1 + 3 and sim.synchronizations() == 2 * 2 * 3


def test_that_clock_sees_a_wait_for_the_wrong_device(pending_at):
    x = torch.ones(8, 8, device="sim")
    sim.reset()
    alternate({"product": lambda: x @ x}, rounds=2, device="cpu", clock=clock_on_an_idle_card)
    assert pending_at == [1, 2, 2, 3]  # the warm-up is pending at the first reading, then a product more every round


def test_measure_waits_for_the_work(small):
    x = torch.ones(8, 8, device="sim")
    found = measure(lambda: x @ x, min_seconds=0.01)
    assert found.median > 0 and sim.launches()["aten::mm"] > 1
    assert sim.pending() == 0 and sim.synchronizations() >= 2 * len(found.times)


@pytest.mark.parametrize("card", ["sim:0", "sim:1"])
def test_the_card_that_is_picked_is_the_one_that_is_waited_for(card):
    picked = pick_device(card)
    x = torch.ones(8, 8, device=picked)
    found = measure(lambda: x @ x, min_seconds=0.01)
    assert sim.pending(card) == 0 and sim.synchronizations(card) >= 2 * len(found.times) == 20


def test_the_first_batches_alone_are_trained_on(small):
    model, step, batches = training(DeviceBatches(*small, device="sim"))
    (epoch,) = train(model, step, First(batches, 3), log=silent)
    assert len(epoch.losses) == 3 and sim.launches()["aten::nll_loss_forward"] == 3
