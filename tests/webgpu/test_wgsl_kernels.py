"""The kernels in WGSL against numpy: odd sizes, one element, and guards behind every array."""

import numpy
import pytest
from guarded import Guarded

from mnist_gpu.webgpu.gpu import Call

SIZES = (1, 255, 256, 257, 1000)
random = numpy.random.default_rng(0)


def numbers(*shape) -> numpy.ndarray:
    return random.standard_normal(shape).astype(numpy.float32)


def groups(n: int, each: int) -> int:
    return -(-n // each)


@pytest.mark.parametrize("kernel, tile", [("product_naive", 16), ("product_tile", 16), ("product", 64)])
@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (1, 130, 3), (65, 33, 17), (64, 64, 16), (70, 129, 100)])
def test_products(gpu, kernel, tile, m, n, k):
    guarded, a, b = Guarded(gpu), numbers(m, k), numbers(k, n)
    arrays = guarded.array(a), guarded.array(b), guarded.array(m * n)
    gpu.run([Call(gpu.kernel(kernel), arrays, (groups(n, tile), groups(m, tile)), (m, n, k))])
    found = arrays[2].read().reshape(m, n)
    numpy.testing.assert_allclose(found, a @ b, rtol=1e-4, atol=1e-4)
    assert guarded.intact()


@pytest.mark.parametrize("n", SIZES)
def test_elementwise(gpu, n):
    a = numbers(n)
    source, out, workgroups = gpu.array(a), gpu.array(n), (2, groups(n, 512))  # in two directions, and some too many
    gpu.run([Call(gpu.kernel("copy"), (source, out), workgroups)])
    assert (out.read() == a).all()
    gpu.run([Call(gpu.kernel("multiply_adds"), (source, out), workgroups, (3,))])
    expected = a
    for _ in range(3):
        expected = expected * numpy.float32(0.5) + numpy.float32(1)
    numpy.testing.assert_allclose(out.read(), expected, rtol=1e-6)


@pytest.mark.parametrize("stride", [1, 2, 32])
def test_a_read_with_steps_reads_every_number_once(gpu, stride):
    a = numbers(1024)
    source, out = gpu.array(a), gpu.array(1024)
    gpu.run([Call(gpu.kernel("strided"), (source, out), (4,), (stride,))])
    assert (out.read() == a.reshape(-1, stride).T.ravel()).all()


@pytest.mark.parametrize("n, run, k", [(1, 1, 0), (257, 1, 3), (1000, 32, 2), (1023, 256, 1)])
def test_a_branch_takes_sides_in_runs(gpu, n, run, k):
    guarded, a = Guarded(gpu), numbers(n)
    source, out = guarded.array(a), gpu.array(n)  # whose length the kernel asks for
    gpu.run([Call(gpu.kernel("branch"), (source, out), (groups(n, 256) + 1,), (run, k))])
    one, other = a, a
    for _ in range(k):
        one, other = one * numpy.float32(0.5) + numpy.float32(1), numpy.float32(1) - other * numpy.float32(0.25)
    expected = numpy.where(numpy.arange(n) // run % 2 == 0, one, other)
    numpy.testing.assert_allclose(out.read(), expected, rtol=1e-5, atol=1e-6)
    assert guarded.intact()


@pytest.mark.parametrize("n", SIZES)
def test_a_reduction(gpu, n):
    guarded, a = Guarded(gpu), numbers(n)
    source, sums = guarded.array(a), guarded.array(groups(n, 256))
    gpu.run([Call(gpu.kernel("sum"), (source, sums), (groups(n, 256),), (n,))])
    numpy.testing.assert_allclose(sums.read().sum(), a.sum(), rtol=1e-4, atol=1e-4)
    assert guarded.intact()
