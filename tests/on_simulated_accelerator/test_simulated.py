"""The simulated accelerator refuses what a real one refuses, and counts launches and waits right."""

import pytest
import simulated_accelerator as sim
import torch
from torch import nn

pytestmark = pytest.mark.gpu


def on(device, *shape):
    return torch.arange(float(torch.Size(shape).numel())).view(shape).to(device)


def test_it_is_pytorchs_accelerator_with_two_cards_whose_memory_is_limited():
    assert torch.accelerator.current_accelerator(check_available=True) == torch.device("sim")
    assert torch.accelerator.device_count() == 2 and torch.zeros(1, device="sim").device == torch.device("sim:0")
    with pytest.raises(RuntimeError, match="there is no card 2"):
        torch.zeros(1, device="sim:2")
    before, total = torch.accelerator.get_memory_info("sim:1")
    x = torch.empty(2**20, dtype=torch.uint8, device="sim:1")
    assert torch.accelerator.get_memory_info("sim:1") == (before - 2**20, total) and total == 8 * 2**30
    del x
    assert torch.accelerator.get_memory_info("sim:1") == (before, total)
    with pytest.raises(torch.OutOfMemoryError, match="of card 1 are free"):
        torch.empty(total + 1, dtype=torch.uint8, device="sim:1")


@pytest.mark.parametrize("other", ["cpu", "sim:1"])
@pytest.mark.parametrize(
    "mix",
    [
        lambda x, y: x + y,
        lambda x, y: y.add_(x),
        lambda x, y: torch.cat([y, x]),
        lambda x, y: torch._foreach_add([x, x], [x, y]),
        lambda x, y: x.index_select(0, y[0].long()),
        lambda x, y: torch.mm(x, x, out=y),
        lambda x, y: nn.functional.cross_entropy(x, y.argmax(1)),
    ],
)
def test_tensors_of_different_devices_cannot_be_mixed(mix, other):
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        mix(on("sim:0", 2, 2), on(other, 2, 2))


def test_launches_are_counted_by_operation_and_are_pending_until_that_card_is_waited_for():
    x, other = torch.ones(3, 3, device="sim"), torch.ones(3, device="sim:1")
    sim.reset()
    (x @ x).relu_()
    x @ x.t()[:2].t()  # views are no launches
    other.sum()
    assert sim.launches() == {"aten::mm": 2, "aten::relu_": 1} and sim.pending() == 3
    torch.accelerator.synchronize("sim:1")
    assert (sim.pending("sim:0"), sim.pending("sim:1")) == (3, 0)
    assert (sim.synchronizations("sim:0"), sim.synchronizations("sim:1")) == (0, 1) and not sim.waits()
    torch.accelerator.synchronize()
    assert sim.pending() == 0 and sim.synchronizations() == 1 and not sim.waits()


@pytest.mark.parametrize(
    ("read", "cause"),
    [
        (lambda x: float(x[0]), "item"),
        (lambda x: x.tolist(), "copy to the host"),
        (lambda x: torch.empty(3).copy_(x, non_blocking=True), "copy to the host"),
        (lambda x: torch.ones(3).to("sim"), "blocking copy from the host"),
        (lambda x: torch.tensor([1.0], device="sim"), "blocking copy from the host"),
        (lambda x: x.nonzero(), "result that depends on values"),
    ],
)
def test_the_host_waits(read, cause):
    x = torch.ones(3, device="sim")
    sim.reset()
    read(x)
    assert sim.waits() == {cause: 1} and sim.pending() == 0 and sim.synchronizations() == 0


@pytest.mark.parametrize(
    "go_on",
    [
        lambda x: torch.ones(3).to("sim", non_blocking=True),
        lambda x: torch.empty(3, pin_memory=True).copy_(x, non_blocking=True),
        lambda x: x.to("sim:1"),
        lambda x: x[x.long()],
        lambda x: x.mul_(torch.tensor(2.0)),
    ],
)
def test_the_host_goes_on(go_on):
    x = torch.ones(3, device="sim")
    sim.reset()
    go_on(x)
    assert sim.pending() > 0 and not sim.waits() and sim.synchronizations() == 0
