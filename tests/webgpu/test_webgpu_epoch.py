"""Training on a GPU through WebGPU, against the plain loop."""

import copy
import itertools

import pytest
import torch
from agreement import assert_same_losses, losses_of, silent
from guarded import Guarded, any_adapter

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.ladder import RUNGS, Training, sgd
from mnist_gpu.faster.webgpu_epoch import WebGPUEpoch
from mnist_gpu.measuring.climb import Climb
from mnist_gpu.measuring.results import Results
from mnist_gpu.measuring.workloads import First
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step, train
from mnist_gpu.webgpu import gpu as gpu_module
from mnist_gpu.webgpu.gpu import WebGPUError, the_gpu


def data(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, 28, 28), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 10, (n,), generator=generator)


def both(gpu, n, batch_size, width, submissions="epoch"):
    """The plain training and the one on the GPU, of the same weights and order."""
    model = make_model(width)
    twin = copy.deepcopy(model)
    batches, same = (DeviceBatches(*data(n), batch_size, seed=3) for _ in range(2))
    plain = Training(model, make_step(model, sgd(model)), batches)
    optimizer = sgd(twin)
    epoch = WebGPUEpoch(gpu, twin, optimizer, same, submissions)
    return plain, Training(twin, epoch.step, epoch), optimizer


SIZES = itertools.product((1, 96, 128, 1000), (1, 10, 128, 300))
LONG = {"marks": pytest.mark.long}  # a minute for two of them on a software driver


@pytest.mark.parametrize("batch_size, width", [pytest.param(b, w, **LONG if b * w > 1e5 else {}) for b, w in SIZES])
def test_thirty_steps_give_the_losses_and_weights_of_the_plain_loop(gpu, batch_size, width):
    guarded, n = Guarded(gpu), 2 * batch_size + batch_size // 3  # the last batch is smaller
    submissions = "step" if (batch_size + width) % 3 else "epoch"  # both with every size and every width
    (model, step, batches), there, _ = both(guarded, n, batch_size, width, submissions)
    epochs = 30 // len(batches)
    assert_same_losses(losses_of(*there, epochs=epochs), losses_of(model, step, batches, epochs=epochs))
    for ours, theirs in zip(there.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4)
    assert guarded.intact()


def test_its_rungs_are_proved_and_timed_beside_the_cpus_and_name_their_hardware(monkeypatch):
    monkeypatch.setenv("MNIST_GPU_WEBGPU", name := any_adapter())
    monkeypatch.setattr(gpu_module, "OPENED", {})
    climb = Climb(torch.device("cpu"), hidden=16, steps=4)
    own = [rung for rung in RUNGS if rung.hardware == "webgpu"]
    assert len(own) == 2 and [climb.reach(rung) for rung in own] == [None, None]
    for timed in climb.measure(floor=False, rounds=2):
        assert timed.device == "webgpu" and timed.proof["largest_loss_difference"] < 1e-5
        assert timed.proof["hardware"] == name and name in Results({}, [timed], "").whose(timed)
    the_gpu().close()


def test_part_of_an_epoch_trains_on_no_more(gpu):
    (model, step, batches), there, _ = both(gpu, 500, 100, 16)
    expected = losses_of(model, step, First(batches, 3))
    assert losses_of(there.model, there.step, First(there.batches, 3)) == pytest.approx(expected, abs=1e-5)


def test_a_training_goes_from_one_to_the_other_with_its_momentum(gpu):
    (model, step, batches), (twin, _, epoch), optimizer = both(gpu, 400, 100, 16)
    expected = train(model, step, batches, epochs=3, log=silent)
    history = train(twin, epoch.step, epoch, log=silent)
    plain = DeviceBatches(*data(400), 100, seed=3)
    plain.order.generator.set_state(epoch.order.generator.get_state())
    train(twin, make_step(twin, optimizer), plain, history=history, log=silent)
    epoch.order.generator.set_state(plain.order.generator.get_state())
    train(twin, epoch.step, epoch, history=history, log=silent)
    assert [e.losses for e in history] == [pytest.approx(e.losses, abs=1e-4) for e in expected]


def test_a_pass_that_fails_leaves_model_and_optimizer_as_they_were(own_gpu):
    _, (model, _, epoch), optimizer = both(own_gpu, 200, 100, 8)
    history = train(model, epoch.step, epoch, log=silent)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
    own_gpu.child.process.kill()
    with pytest.raises(WebGPUError):
        train(model, epoch.step, epoch, history=history, log=silent)
    assert len(history) == 1
    after = model.state_dict(), optimizer.state_dict()["state"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_what_it_is_not_written_for_is_refused_by_name(gpu):
    model, (images, labels), n = make_model(8), data(1), 65_536
    batches, many = DeviceBatches(images, labels, 5), DeviceBatches(images.expand(n, 28, 28), labels.expand(n), n)
    nesterov = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for named, arguments in {
        "Adam": (model, torch.optim.Adam(model.parameters()), batches),
        "nesterov": (model, nesterov, batches),
        "65535": (model, sgd(model), many),
    }.items():
        with pytest.raises(ValueError, match=named):
            WebGPUEpoch(gpu, *arguments)
