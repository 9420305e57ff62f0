import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mnist_gpu.measuring.operations import step_flops
from mnist_gpu.model import MLP, make_model, parameter_count


def test_a_network_that_does_not_fit_into_memory_is_refused_before_it_is_made():
    with pytest.raises(MemoryError, match=r"width 1000000000: 3,180\.0 GB"):
        make_model(10**9)


def test_forward_is_the_matrix_computation_written_out():
    model = make_model(hidden=16).double()
    images = torch.rand(5, 1, 28, 28, dtype=torch.float64) * 2 - 1
    w1, b1, w2, b2 = (p.detach() for p in model.parameters())
    hidden = (images.reshape(5, 784) @ w1.T + b1).clamp(min=0)
    assert torch.allclose(model(images), hidden @ w2.T + b2, atol=1e-12)
    assert (hidden == 0).any()  # the ReLU cut something off, so it was tested


def test_the_textbooks_network_has_101_770_parameters():
    assert parameter_count() == 101_770 and parameter_count(7) == sum(p.numel() for p in MLP(7).parameters())
    assert [list(p.shape) for p in MLP().parameters()] == [[128, 784], [128], [10, 128], [10]]


@pytest.mark.parametrize(("batch_size", "hidden"), [(1, 1), (96, 128), (300, 2048)])
def test_step_flops_equal_those_that_pytorch_counts(batch_size, hidden):
    model, labels = MLP(hidden), torch.zeros(batch_size, dtype=torch.int64)
    with FlopCounterMode(display=False) as forward:
        loss = F.cross_entropy(model(torch.zeros(batch_size, 1, 28, 28)), labels)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert step_flops(batch_size, hidden) == (forward.get_total_flops(), backward.get_total_flops())


@pytest.mark.parametrize("shape", [(5, 784), (5, 3, 28, 28)])
def test_images_of_another_shape_are_named(shape):
    with pytest.raises(ValueError, match=r"images are \[" + ", ".join(map(str, shape)) + r"\], but must be"):
        MLP()(torch.zeros(shape))


def test_the_seed_alone_decides_the_initial_weights_and_the_global_random_state_is_left_alone():
    weights = []
    for state in (1, 2):
        before = torch.manual_seed(state).get_state()
        weights.append(make_model(seed=5).hidden.weight)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*weights) and not torch.equal(make_model(seed=6).hidden.weight, weights[0])
