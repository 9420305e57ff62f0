"""The simulated accelerator refuses what a real one refuses, and counts launches and waits right."""

import pytest
import simulated_accelerator as sim
import torch

pytestmark = pytest.mark.gpu


def test_each_of_two_cards_has_limited_memory_and_their_tensors_do_not_mix():
    assert torch.accelerator.current_accelerator(check_available=True) == torch.device("sim")
    before, total = torch.accelerator.get_memory_info("sim:1")
    x = torch.zeros(2, 2, device="sim:1")
    assert torch.accelerator.get_memory_info("sim:1") == (before - 16, total)
    with pytest.raises(torch.OutOfMemoryError, match="of card 1 are free"):
        torch.empty(total + 1, dtype=torch.uint8, device="sim:1")
    for other in ("cpu", "sim:0"):
        y = torch.zeros(2, 2, device=other)
        for mix in (torch.add, lambda x, y: torch.cat([y, x]), lambda x, y: torch.mm(x, x, out=y)):
            with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
                mix(x, y)


def test_launches_are_counted_by_operation_and_are_pending_until_that_card_is_waited_for():
    x, other = torch.ones(3, 3, device="sim"), torch.ones(3, device="sim:1")
    sim.reset()
    (x @ x).relu_()
    x @ x.t()[:2].t()  # views are no launches
    other.sum()
    assert sim.launches() == {"aten::mm": 2, "aten::relu_": 1} and sim.pending() == 3
    torch.accelerator.synchronize("sim:1")
    assert (sim.pending("sim:0"), sim.pending("sim:1"), sim.synchronizations("sim:0")) == (3, 0, 0)


@pytest.mark.parametrize(
    ("use", "causes"),
    [
        (lambda x: float(x[0]), {"item": 1}),
        (lambda x: torch.empty(3).copy_(x, non_blocking=True), {"copy to the host": 1}),
        (lambda x: torch.ones(3).to("sim"), {"blocking copy from the host": 1}),
        (lambda x: x.nonzero(), {"result that depends on values": 1}),
        (lambda x: torch.ones(3).to("sim", non_blocking=True), {}),
        (lambda x: x[x.long()], {}),
    ],
)
def test_the_host_waits_where_it_needs_something_back_and_else_goes_on(use, causes):
    x = torch.ones(3, device="sim")
    sim.reset()
    use(x)
    assert sim.waits() == causes and (sim.pending() == 0) == bool(causes) and sim.synchronizations() == 0
