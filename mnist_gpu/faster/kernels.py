"""The training step as kernels of our own, written in Triton: what runs on a GPU in it, and nothing else.

A kernel is run by many programs at once. A program asks for its number, computes from it which elements are its own,
loads them, computes, and stores. Sizes of blocks are powers of two, sizes of data are anything, so a mask says which
elements of a block exist. Where there is no NVIDIA GPU, Triton interprets the kernels on the CPU
(mnist_gpu.faster.with_triton).

Importing this file raises ImportError where Triton is missing, and says why.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from mnist_gpu.checks import positive
from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.with_triton import choose, interpreted, kernel_device
from mnist_gpu.model import CLASSES, MLP, PIXELS

choose()
import triton  # noqa: E402
import triton.language as tl  # noqa: E402

# Elements of a program of the kernels that go element by element.
BLOCK = 1024


class Tiling(NamedTuple):
    """How a product is cut into tiles, one a program."""

    side: int  # rows and columns of a tile, at most
    programs: int  # so many there should be: a longer side is halved, down to 16, as long as there are fewer


# With 32 x 32 the hidden layer would have 16 programs, on cards with 40 to 132 multiprocessors.
ON_A_GPU = Tiling(32, 64)
# The interpreter's time goes into its operations and not into their sizes: with 32 x 32 it takes ten times as long.
TILING = Tiling(128, 1) if interpreted() else ON_A_GPU


@triton.jit
def update_kernel(w, g, lr, n, BLOCK: tl.constexpr):
    """w -= lr * g, for n elements: a program has BLOCK of them, the last one fewer."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    new = tl.load(w + i, mask=inside) - lr * tl.load(g + i, mask=inside)
    tl.store(w + i, new, mask=inside)


@triton.jit
def gather_kernel(images, index, out, PIXELS: tl.constexpr, BLOCK: tl.constexpr):
    """One image a program: out[row] = images[index[row]] / 127.5 - 1."""
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    inside = i < PIXELS
    chosen = tl.load(index + row)  # int64, so that the address may lie beyond 2^31
    x = tl.load(images + chosen * PIXELS + i, mask=inside).to(tl.float32)
    # div_rn, because "/" by a constant is compiled to a product with its reciprocal, which rounds differently.
    tl.store(out + row * PIXELS + i, tl.div_rn(x, 127.5) - 1, mask=inside)


@triton.jit
def product_kernel(
    a, b, bias, gate, c, m, n, k,
    a_row, a_column, b_row, b_column,  # strides: how many elements further the next row, the next column begins
    RELU: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """c = a @ b, [m, k] and [k, n] to [m, n]: a program has a tile of c, and goes along k for it.

    Then, where they are given: + bias[n], ReLU, and ReLU's backward pass (c is 0 where gate[m, n] is not above 0).
    """
    row = tl.program_id(0) * TILE_M + tl.arange(0, TILE_M)
    column = tl.program_id(1) * TILE_N + tl.arange(0, TILE_N)
    total = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)
    for start in range(0, k, TILE_K):
        inner = start + tl.arange(0, TILE_K)
        a_tile = tl.load(
            a + row[:, None] * a_row + inner[None, :] * a_column,
            mask=(row[:, None] < m) & (inner[None, :] < k),
            other=0.0,  # beyond k both tiles are 0, which adds nothing
        )
        b_tile = tl.load(
            b + inner[:, None] * b_row + column[None, :] * b_column,
            mask=(inner[:, None] < k) & (column[None, :] < n),
            other=0.0,
        )
        # "ieee", because the default rounds both operands to TF32's 11 bits on cards that have it.
        total = tl.dot(a_tile, b_tile, total, input_precision="ieee")
    if bias is not None:
        total += tl.load(bias + column, mask=column < n, other=0.0)[None, :]
    if RELU:
        total = tl.maximum(total, 0.0)
    at = row[:, None] * n + column[None, :]
    inside = (row[:, None] < m) & (column[None, :] < n)
    if gate is not None:
        total = tl.where(tl.load(gate + at, mask=inside, other=0.0) > 0, total, 0.0)
    tl.store(c + at, total, mask=inside)


@triton.jit
def cross_entropy_kernel(logits, labels, losses, gradient, n, classes, BLOCK: tl.constexpr):
    """One row a program: its loss / n, and the gradient of that by its logits, (softmax - 1 at the label) / n."""
    row = tl.program_id(0)
    j = tl.arange(0, BLOCK)
    inside = j < classes
    x = tl.load(logits + row * classes + j, mask=inside, other=-float("inf"))  # exp(-inf) adds nothing to the sum
    x -= tl.max(x, 0)  # the same softmax; without it exp() overflows from a logit of 89 on
    e = tl.exp(x)
    total = tl.sum(e, 0)
    right = j == tl.load(labels + row)
    tl.store(losses + row, (tl.log(total) - tl.sum(tl.where(right, x, 0.0), 0)) / n)
    tl.store(gradient + row * classes + j, (e / total - right.to(tl.float32)) / n, mask=inside)


@triton.jit
def column_sums_kernel(a, out, rows, columns, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """out[j] = the sum of column j of a [rows, columns]: a program has BLOCK_C columns, and goes down all rows."""
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros((BLOCK_C,), dtype=tl.float32)
    for start in range(0, rows, BLOCK_R):
        row = start + tl.arange(0, BLOCK_R)
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        total += tl.sum(tl.load(a + row[:, None] * columns + column[None, :], mask=inside, other=0.0), 0)
    tl.store(out + column, total, mask=column < columns)


@triton.jit
def sgd_kernel(w, v, g, lr, momentum, n, BLOCK: tl.constexpr):
    """v = momentum * v + g, w -= lr * v, for the n elements of all parameters at once."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    velocity = momentum * tl.load(v + i, mask=inside) + tl.load(g + i, mask=inside)
    tl.store(v + i, velocity, mask=inside)
    tl.store(w + i, tl.load(w + i, mask=inside) - lr * velocity, mask=inside)


def update(w: torch.Tensor, g: torch.Tensor, lr: float, block: int = BLOCK) -> None:
    """w -= lr * g in place; both float32, contiguous, of the same size."""
    update_kernel[(triton.cdiv(w.numel(), block),)](w, g, lr, w.numel(), BLOCK=block)


def gather_normalize(images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The bits of normalize(images[index]): uint8 `[N, 28, 28]`, int64 `[B]` to float32 `[B, 1, 28, 28]`, -1..1."""
    out = torch.empty(len(index), 1, 28, 28, device=images.device)
    gather_kernel[(len(index),)](images, index, out, PIXELS=PIXELS, BLOCK=triton.next_power_of_2(PIXELS))
    return out


def product(a, b, out, *, bias=None, gate=None, relu=False, tile: int | None = None) -> torch.Tensor:
    """out = a @ b, `[m, k]` and `[k, n]` to `[m, n]`, float32; see product_kernel for what may follow.

    a and b may be transposed views, since their strides go along; out and gate are contiguous. Tiles are those of
    TILING, or squares with sides of `tile`; less for a side that is shorter, and never less than the 16 that tl.dot
    takes on a GPU.
    """
    (m, k), n = a.shape, b.shape[1]
    side, programs = Tiling(tile, 1) if tile else TILING
    tile_m, tile_n, tile_k = (max(16, min(side, triton.next_power_of_2(size))) for size in (m, n, k))
    while triton.cdiv(m, tile_m) * triton.cdiv(n, tile_n) < programs and max(tile_m, tile_n) > 16:
        tile_m, tile_n = (tile_m // 2, tile_n) if tile_m >= tile_n else (tile_m, tile_n // 2)
    product_kernel[(triton.cdiv(m, tile_m), triton.cdiv(n, tile_n))](
        a, b, bias, gate, out, m, n, k, *a.stride(), *b.stride(),
        RELU=relu, TILE_M=tile_m, TILE_N=tile_n, TILE_K=tile_k,
    )  # fmt: skip
    return out


def cross_entropy(logits, labels, losses, gradient) -> None:
    """Of logits `[B, C]` and labels `[B]`: losses `[B]`, whose sum is the mean loss, and its gradient `[B, C]`."""
    n, classes = logits.shape
    block = triton.next_power_of_2(classes)
    cross_entropy_kernel[(n,)](logits, labels, losses, gradient, n, classes, BLOCK=block, num_warps=1)


def column_sums(a: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """out `[n]` = the sums of the columns of a `[m, n]`, contiguous."""
    rows, columns = a.shape
    block = min(32, triton.next_power_of_2(columns))  # the losses are one column
    column_sums_kernel[(triton.cdiv(columns, block),)](a, out, rows, columns, BLOCK_R=128, BLOCK_C=block)
    return out


def sgd(w, v, g, lr: float, momentum: float, block: int = BLOCK) -> None:
    """SGD with momentum in place, on weights, momenta and gradients of the same size, float32, contiguous."""
    sgd_kernel[(triton.cdiv(w.numel(), block),)](w, v, g, lr, momentum, w.numel(), BLOCK=block)


class KernelBatches(DeviceBatches):
    """DeviceBatches whose images are gathered and normalized by one kernel."""

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gather_normalize(self.images, index), self.labels.index_select(0, index)


def need_float32_for_kernels(model: MLP) -> None:
    """Raises ValueError unless the model is float32 and where this process runs kernels."""
    where = kernel_device().type
    if any(p.device.type != where or p.dtype != torch.float32 for p in model.parameters()):
        how = "interprets" if interpreted() else "compiles"
        raise ValueError(f"this process {how} kernels: they are for a float32 model on {where!r}")


def _check(images: torch.Tensor, labels: torch.Tensor, device: torch.device) -> None:
    """A kernel takes an address for what it is told, so what it is told has to be right. Raises ValueError."""
    for name, given, shape, dtype in (
        ("images", images, (len(labels), 1, 28, 28), torch.float32),
        ("labels", labels, (len(images),), torch.int64),
    ):
        if given.dtype != dtype or given.shape != shape or given.device != device or not len(given):
            raise ValueError(
                f"{name} are {given.dtype} {list(given.shape)} on {given.device}, but must be {dtype} {list(shape)} on "
                f"{device}, one label an image, and at least one"
            )


def make_kernel_step(model: MLP, *, lr: float = 0.01, momentum: float = 0.9) -> Callable:
    """SGD's step on `model` under the step contract (see mnist_gpu.training), in ten launches of these kernels.

    The parameters become views of one tensor, as do the gradients and momenta, so that one launch updates them all.
    `step.optimizer` is torch.optim.SGD around the same momenta: it is what a capture as a CUDA graph needs, and a
    checkpoint. Labels are not checked to lie from 0 to 9, which would mean to wait for the device.

    Args:
        model: is trained in place.
        lr, momentum: of SGD.

    Raises:
        ValueError: lr not positive; the model is not float32, or not where this process runs kernels. At a call: images
            or labels of a wrong type, shape, length or device.
    """
    positive(lr=lr)
    need_float32_for_kernels(model)
    hidden, device = model.hidden.out_features, model.hidden.weight.device
    parameters = [model.hidden.weight, model.hidden.bias, model.output.weight, model.output.bias]
    flat = torch.cat([p.detach().flatten() for p in parameters])
    flat_momenta, flat_gradients = torch.zeros_like(flat), torch.zeros_like(flat)

    def views(flat):
        pieces = flat.split([p.numel() for p in parameters])
        return [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]

    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=momentum)
    for parameter, view, velocity in zip(parameters, views(flat), views(flat_momenta), strict=True):
        parameter.data = view
        optimizer.state[parameter]["momentum_buffer"] = velocity
    weights_1, bias_1, weights_2, bias_2 = views(flat)
    gradient_weights_1, gradient_bias_1, gradient_weights_2, gradient_bias_2 = views(flat_gradients)
    between = {}  # what one kernel leaves for the next, by batch size: a pass has two

    @torch.no_grad()
    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        _check(images, labels, device)
        n = len(labels)
        if n not in between:
            sizes = (n, hidden), (n, CLASSES), (n, 1), (n, CLASSES), (n, hidden)
            between[n] = [torch.empty(size, device=device) for size in sizes]
        activations, logits, losses, gradient_logits, gradient_hidden = between[n]
        x, labels = images.reshape(n, PIXELS).contiguous(), labels.contiguous()

        product(x, weights_1.t(), activations, bias=bias_1, relu=True)
        product(activations, weights_2.t(), logits, bias=bias_2)
        cross_entropy(logits, labels, losses, gradient_logits)
        loss = column_sums(losses, torch.empty(1, device=device))

        product(gradient_logits.t(), activations, gradient_weights_2)
        column_sums(gradient_logits, gradient_bias_2)
        product(gradient_logits, weights_2, gradient_hidden, gate=activations)
        product(gradient_hidden.t(), x, gradient_weights_1)
        column_sums(gradient_hidden, gradient_bias_1)

        sgd(flat, flat_momenta, flat_gradients, lr, momentum)
        return loss.view(())

    step.optimizer = optimizer
    return step
