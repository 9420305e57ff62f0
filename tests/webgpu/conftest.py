"""A GPU through WebGPU, or a driver in software (Debian: mesa-vulkan-drivers); skipped where there is neither."""

import pytest
from guarded import any_adapter

from mnist_gpu.webgpu.gpu import Gpu


@pytest.fixture(scope="module")
def gpu():
    opened = Gpu(any_adapter())
    yield opened
    opened.close()


@pytest.fixture
def own_gpu():
    """One that a test may break."""
    opened = Gpu(any_adapter())
    yield opened
    opened.close()
