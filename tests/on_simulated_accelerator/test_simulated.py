"""The simulated accelerator behaves like a real one where programs go wrong, and counts right."""

import copy
import io

import pytest
import simulated_accelerator as sim
import torch
from torch import nn

pytestmark = pytest.mark.gpu

ANOTHER_DEVICE = "Expected all tensors to be on the same device, but found at least two devices"


def on(device, *shape):
    return torch.arange(float(torch.Size(shape).numel())).view(shape).to(device)


# The device


def test_it_is_pytorchs_accelerator_with_two_cards():
    assert torch.accelerator.current_accelerator(check_available=True) == torch.device("sim")
    assert torch.accelerator.device_count() == 2
    assert torch.zeros(1, device="sim").device == torch.device("sim:0")
    torch.accelerator.set_device_index(1)
    assert torch.zeros(1, device="sim").device == torch.device("sim:1")
    assert torch.accelerator.current_device_index() == torch.sim.current_device() == 1


def test_there_is_no_third_card():
    with pytest.raises(RuntimeError, match="there is no card 2"):
        torch.zeros(1, device="sim:2")
    with pytest.raises(RuntimeError, match="there is no card 2"):
        torch.accelerator.set_device_index(2)


def test_results_are_the_cpus():
    a, b = torch.rand(5, 7), torch.rand(7, 3)
    assert torch.equal((a.to("sim") @ b.to("sim")).softmax(1).cpu(), (a @ b).softmax(1))


def test_views_share_memory_and_results_may_be_written_into_given_tensors():
    x, out = on("sim", 3, 4), torch.empty(0, device="sim")
    x.t()[1].mul_(10)
    assert x[:, 1].tolist() == [10, 50, 90]
    torch.mm(x, x.t(), out=out)
    assert torch.equal(out, x @ x.t())
    x.unsqueeze_(0).resize_(1, 5, 4)
    assert x.shape == (1, 5, 4) and x[0, 2, 1].item() == 90


def test_memory_is_limited_and_given_back():
    before, total = torch.accelerator.get_memory_info("sim:1")
    x = torch.empty(2**20, dtype=torch.uint8, device="sim:1")
    assert torch.accelerator.get_memory_info("sim:1") == (before - 2**20, total)
    assert total == 8 * 2**30
    del x
    assert torch.accelerator.get_memory_info("sim:1") == (before, total)
    with pytest.raises(torch.OutOfMemoryError, match="of card 1 are free"):
        torch.empty(total + 1, dtype=torch.uint8, device="sim:1")


# What may meet


@pytest.mark.parametrize("other", ["cpu", "sim:1"])
@pytest.mark.parametrize(
    "mix",
    [
        lambda x, y: x + y,
        lambda x, y: y + x,
        lambda x, y: x @ y,
        lambda x, y: x.add_(y),
        lambda x, y: y.add_(x),
        lambda x, y: torch.cat([x, y]),
        lambda x, y: torch.cat([y, x]),
        lambda x, y: torch._foreach_add([x, x], [x, y]),
        lambda x, y: nn.functional.cross_entropy(x, y.argmax(1)),
        lambda x, y: x.index_select(0, y[0].long()),
        lambda x, y: torch.where(x > 1, x, y),
        lambda x, y: torch.mm(x, x, out=y),
        lambda x, y: nn.functional.linear(x, x, y[0]),
    ],
)
def test_tensors_of_different_devices_cannot_be_mixed(mix, other):
    with pytest.raises(RuntimeError, match=ANOTHER_DEVICE):
        mix(on("sim:0", 2, 2), on(other, 2, 2))


def test_the_hosts_scalars_may_be_read_but_not_written():
    x, scalar = on("sim", 3), torch.tensor(2.0)
    for found in (x + scalar, scalar + x, torch.where(x > 1, scalar, x)):
        assert found.device == torch.device("sim:0")
    assert (scalar * x).tolist() == [0, 2, 4]
    with pytest.raises(RuntimeError, match=ANOTHER_DEVICE):
        scalar.add_(x.sum())
    with pytest.raises(RuntimeError, match=ANOTHER_DEVICE):
        x + on("sim:1", 1).sum()  # another card's scalar is not the host's


def test_the_hosts_indices_are_copied_and_another_cards_refused():
    x, index = on("sim", 4, 2), torch.tensor([3, 1])
    sim.reset()
    found = x[index]
    assert sim.waits() == {"blocking copy from the host": 1} and found.tolist() == [[6, 7], [2, 3]]
    x[index] = 0
    assert x.sum().item() == 0 + 1 + 4 + 5
    with pytest.raises(RuntimeError, match="same device as the indexed tensor"):
        x[index.to("sim:1")]
    with pytest.raises(RuntimeError, match=ANOTHER_DEVICE):
        x[index.to("sim:1")] = 0
    with pytest.raises(RuntimeError, match="same device as the indexed tensor"):
        on("cpu", 4, 2)[index.to("sim")]


# What is counted


def test_launches_are_counted_by_operation_and_are_pending():
    x = torch.ones(3, 3, device="sim")
    sim.reset()
    (x @ x).relu_()
    x @ x
    assert sim.launches() == {"aten::mm": 2, "aten::relu_": 1} and sim.pending() == 3
    assert not sim.launches("sim:1") and sim.pending("sim:1") == 0
    assert not sim.waits() and sim.synchronizations() == 0


def test_views_are_no_launches():
    x = torch.ones(4, 6, device="sim")
    sim.reset()
    x.t().unsqueeze(0)[0, :3].flatten().detach().split(2)
    x.view(2, 12)
    assert set(sim.launches()) <= {"copy"}  # of flatten, which has to make the columns contiguous


def test_a_synchronization_ends_what_is_pending_on_that_card_alone():
    for card in ("sim:0", "sim:1"):
        torch.ones(2, device=card)
    torch.accelerator.synchronize("sim:1")
    assert (sim.pending("sim:0"), sim.pending("sim:1")) == (1, 0)
    assert (sim.synchronizations("sim:0"), sim.synchronizations("sim:1")) == (0, 1)
    torch.accelerator.synchronize()
    assert sim.pending("sim:0") == 0 and sim.synchronizations("sim:0") == 1 and not sim.waits()


@pytest.mark.parametrize(
    ("read", "cause"),
    [
        (lambda x: x[0].item(), "item"),
        (lambda x: float(x[0]), "item"),
        (lambda x: bool(x[0]), "item"),
        (lambda x: x.cpu(), "copy to the host"),
        (lambda x: x.tolist(), "copy to the host"),
        (lambda x: torch.empty(3).copy_(x, non_blocking=True), "copy to the host"),
        (lambda x: x.copy_(torch.ones(3)), "blocking copy from the host"),
        (lambda x: torch.ones(3).to("sim"), "blocking copy from the host"),
        (lambda x: torch.tensor([1.0], device="sim"), "blocking copy from the host"),
        (lambda x: x.nonzero(), "result that depends on values"),
        (lambda x: x.masked_select(x > 1), "result that depends on values"),
        (lambda x: torch.equal(x, x), "result that depends on values"),
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
        lambda x: x.copy_(torch.ones(3), non_blocking=True),
        lambda x: torch.ones(3).to("sim", non_blocking=True),
        lambda x: torch.empty(3, pin_memory=True).copy_(x, non_blocking=True),
        lambda x: x.to("sim:1"),
        lambda x: x.clone(),
        lambda x: x[x.long()],
        lambda x: x.mul_(torch.tensor(2.0)),
        lambda x: torch.full((3,), 2.0, device="sim"),
    ],
)
def test_the_host_goes_on(go_on):
    x = torch.ones(3, device="sim")
    sim.reset()
    go_on(x)
    assert sim.pending() > 0 and not sim.waits() and sim.synchronizations() == 0


def test_indexing_with_a_mask_waits_for_the_number_of_its_places():
    x = torch.ones(3, device="sim")
    sim.reset()
    x[x > 0]
    assert sim.waits() == {"result that depends on values": 1}
    assert sim.launches() == {"aten::gt": 1, "aten::nonzero": 1, "aten::index": 1} and sim.pending() == 1


def test_a_wait_for_one_card_leaves_the_others_work_pending():
    x = torch.ones(3, device="sim:0")
    torch.ones((), device="sim:1").item()
    assert sim.pending("sim:0") == 1 and sim.pending("sim:1") == 0
    x[0].item()
    assert sim.pending("sim:0") == 0


def test_a_device_that_is_no_card_has_no_counts():
    with pytest.raises(ValueError, match="cpu is not a card"):
        sim.pending("cpu")


# What training needs


def test_a_backward_pass_runs_on_the_card_where_the_forward_pass_ran():
    there, here = nn.Linear(4, 3), nn.Linear(4, 3)
    here.load_state_dict(there.state_dict())
    there.to("sim:1")
    x = torch.rand(5, 4)
    on_card = x.to("sim:1")
    sim.reset()
    free = torch.accelerator.get_memory_info("sim:0")
    there(on_card).square().sum().backward()  # the thread that runs it begins with card 0 as its current one
    assert there.weight.grad.device == torch.device("sim:1")
    assert sim.launches("sim:1")["aten::mm"] and not sim.launches("sim:0")
    assert torch.accelerator.get_memory_info("sim:0") == free
    here(x).square().sum().backward()
    assert torch.equal(there.weight.grad.cpu(), here.weight.grad)


def test_a_graph_may_span_both_cards():
    x = torch.ones(3, device="sim:0", requires_grad=True)
    (x * 2).to("sim:1").pow(2).sum().backward()
    assert x.grad.device == torch.device("sim:0") and x.grad.tolist() == [8, 8, 8]


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}], ids=str)
def test_sgd_gives_the_cpus_weights(options):
    here = nn.Linear(4, 3)
    there = copy.deepcopy(here).to("sim:1")
    x = torch.rand(5, 4)
    for model in (here, there):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **options)
        for _ in range(3):
            optimizer.zero_grad()
            model(x.to(model.weight.device)).square().sum().backward()
            sim.reset()
            optimizer.step()
    assert torch.equal(there.weight.cpu(), here.weight) and not torch.equal(here.weight, nn.Linear(4, 3).weight)
    assert not sim.launches("sim:0")
    fused = sim.launches("sim:1")["aten::_fused_sgd_"]
    assert fused == (1 if options == {"fused": True} else 0)


def test_autocast_casts_linear_layers_and_keeps_the_loss_in_float32():
    model, x = nn.Linear(4, 3).to("sim"), torch.rand(5, 4, device="sim")
    with torch.autocast("sim", torch.bfloat16):
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, torch.zeros(5, dtype=torch.int64, device="sim"))
    loss.backward()
    assert logits.dtype == torch.bfloat16 and loss.dtype == model.weight.grad.dtype == torch.float32
    assert model(x).dtype == torch.float32


def test_tensors_are_saved_and_loaded():
    file = io.BytesIO()
    torch.save({"a": on("sim:1", 3)}, file)
    for location, device in {"cpu": "cpu", "sim:0": "sim:0", None: "sim:1"}.items():
        file.seek(0)
        found = torch.load(file, map_location=location)["a"]
        assert found.device == torch.device(device) and found.tolist() == [0, 1, 2]


def test_random_numbers_are_the_cards_own():
    torch.manual_seed(0)
    cpu, card, other = torch.rand(3), torch.rand(3, device="sim:0"), torch.rand(3, device="sim:1")
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3, device="sim:1"), other) and torch.equal(torch.rand(3, device="sim:0"), card)
    assert torch.equal(torch.rand(3), cpu)  # the cards' draws have not moved it


def test_a_generator_belongs_to_its_device():
    generator = torch.Generator("sim:1").manual_seed(3)
    first = torch.rand(4, device="sim:1", generator=generator)
    second = torch.rand(4, device="sim:1", generator=generator)
    assert generator.device == torch.device("sim:1") and not torch.equal(first, second)
    assert torch.equal(torch.rand(4, device="sim:1", generator=generator.manual_seed(3)), first)
    with pytest.raises(RuntimeError, match="Expected a 'sim' device type for generator but found 'cpu'"):
        torch.rand(4, device="sim", generator=torch.Generator())
    with pytest.raises(RuntimeError):
        torch.randperm(4, generator=generator)


def test_random_states_can_be_kept():
    state = torch.sim.get_rng_state("sim:1")
    expected = torch.rand(3, device="sim:1")
    torch.sim.set_rng_state(state, "sim:1")
    with torch.random.fork_rng(devices=[1], device_type="sim"):
        assert torch.equal(torch.rand(3, device="sim:1"), expected)
    assert torch.equal(torch.rand(3, device="sim:1"), expected)


def test_pinned_memory_is_the_hosts():
    pinned = torch.ones(3).pin_memory()
    assert pinned.device.type == "cpu" and pinned.is_pinned() and torch.empty(3, pin_memory=True).is_pinned()
    assert not torch.ones(3).is_pinned()
    with pytest.raises(RuntimeError, match="Only dense CPU tensors can be pinned"):
        torch.empty(3, device="sim", pin_memory=True)
