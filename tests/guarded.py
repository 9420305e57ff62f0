"""What the tests of WebGPU share: an adapter, software included, and arrays with guards behind their end."""

import os

import numpy
import pytest

from mnist_gpu.webgpu.gpu import adapters


def any_adapter() -> str:
    """The name of the best adapter, software where there is no other, as in CI; skips without one."""
    found, reason = adapters()
    if not found:
        pytest.skip(f"needs a GPU or a software driver for WebGPU: {reason}")
    return os.environ.get("MNIST_GPU_WEBGPU", found[0].name)


GUARD = 64  # numbers before the end of an array that no kernel may touch


class Guarded:
    """Stands for a Gpu: its arrays have NaN behind their end, which `intact` finds changed."""

    def __init__(self, gpu):
        self.gpu, self.guards = gpu, []

    def __getattr__(self, name):
        return getattr(self.gpu, name)

    def array(self, content):
        content = numpy.zeros(content, numpy.float32) if isinstance(content, int) else content
        guard = numpy.full(GUARD * 4, 0xFF, numpy.uint8)  # as float32 NaN, as an index beyond everything
        array = self.gpu.array(numpy.concatenate([content.reshape(-1).view(numpy.uint8), guard]))
        everything = array.read
        array.read = lambda: everything()[: content.nbytes].view(content.dtype).reshape(content.shape)
        self.guards.append(lambda: everything()[content.nbytes :])
        return array

    def intact(self) -> bool:
        return all((guard() == 0xFF).all() for guard in self.guards)
