import pytest
import simulated_accelerator as sim
import torch


@pytest.fixture(autouse=True)
def from_zero():
    """Every test begins on the first card, with all counts at zero."""
    torch.accelerator.set_device_index(0)
    sim.reset()
