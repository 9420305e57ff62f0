"""The training step as kernels of our own, in Triton; importing it raises ImportError where Triton is missing.

Many programs run a kernel at once, each on a block of elements. Its size is a power of two; a mask says which exist.
"""

from collections.abc import Callable

import torch

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.with_triton import imported, interpreted
from mnist_gpu.faster.written_out import in_one_tensor
from mnist_gpu.model import MLP, PIXELS

triton, tl = imported()

# How a product is cut: a tile's side, at most, and how many programs there should be, on cards with 40 to 132
# multiprocessors: with 32 x 32 the hidden layer would have 16. The interpreter likes few large operations.
TILING = (128, 1) if interpreted() else (32, 64)


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
        a_inside, b_inside = (row[:, None] < m) & (inner[None, :] < k), (inner[:, None] < k) & (column[None, :] < n)
        # Beyond k both tiles are 0, which adds nothing.
        a_tile = tl.load(a + row[:, None] * a_row + inner[None, :] * a_column, mask=a_inside, other=0.0)
        b_tile = tl.load(b + inner[:, None] * b_row + column[None, :] * b_column, mask=b_inside, other=0.0)
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
def cross_entropy_kernel(logits, labels, loss, grad, n, classes, BLOCK: tl.constexpr):
    """One row a program: its loss / n, and the gradient of that by its logits, (softmax - 1 at the label) / n."""
    row = tl.program_id(0)
    j = tl.arange(0, BLOCK)
    inside = j < classes
    x = tl.load(logits + row * classes + j, mask=inside, other=-float("inf"))  # exp(-inf) adds nothing to the sum
    x -= tl.max(x, 0)  # the same softmax; without it exp() overflows from a logit of 89 on
    e = tl.exp(x)
    total = tl.sum(e, 0)
    right = j == tl.load(labels + row)
    tl.store(loss + row, (tl.log(total) - tl.sum(tl.where(right, x, 0.0), 0)) / n)
    to_logits = (e / total - right.to(tl.float32)) / n
    tl.store(grad + row * classes + j, to_logits, mask=inside)


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


def gather_normalize(images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The bits of normalize(images[index]): uint8 `[N, 28, 28]`, int64 `[B]` to float32 `[B, 1, 28, 28]`, -1..1."""
    out = torch.empty(len(index), 1, 28, 28, device=images.device)
    gather_kernel[(len(index),)](images, index, out, PIXELS=PIXELS, BLOCK=triton.next_power_of_2(PIXELS))
    return out


def product(a, b, out, *, bias=None, gate=None, relu=False, tiling: tuple[int, int] | None = None) -> torch.Tensor:
    """out = a @ b, `[m, k]` and `[k, n]` to `[m, n]`, float32; see product_kernel for what may follow.

    a and b may be transposed views. A tile's side is 16 at least, as tl.dot wants it on a GPU.
    """
    (m, k), n, (side, programs) = a.shape, b.shape[1], tiling or TILING
    tile_m, tile_n, tile_k = (max(16, min(side, triton.next_power_of_2(size))) for size in (m, n, k))
    while triton.cdiv(m, tile_m) * triton.cdiv(n, tile_n) < programs and max(tile_m, tile_n) > 16:
        tile_m, tile_n = (tile_m // 2, tile_n) if tile_m >= tile_n else (tile_m, tile_n // 2)
    grid = triton.cdiv(m, tile_m), triton.cdiv(n, tile_n)
    tiles = {"TILE_M": tile_m, "TILE_N": tile_n, "TILE_K": tile_k}
    product_kernel[grid](a, b, bias, gate, out, m, n, k, *a.stride(), *b.stride(), RELU=relu, **tiles)
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


def sgd(w, v, g, lr: float, momentum: float, block: int = 1024) -> None:
    """SGD with momentum in place, on weights, momenta and gradients of the same size, float32, contiguous."""
    sgd_kernel[(triton.cdiv(w.numel(), block),)](w, v, g, lr, momentum, w.numel(), BLOCK=block)


class KernelBatches(DeviceBatches):
    """DeviceBatches whose images are gathered and normalized by one kernel."""

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gather_normalize(self.images, index), self.labels.index_select(0, index)


def _check(images: torch.Tensor, labels: torch.Tensor, device: torch.device) -> None:
    """A kernel takes an address for what it is told, so what it is told has to be right. Raises ValueError."""
    n = max(1, len(labels))
    for a, wanted in ((images, (torch.float32, (n, 1, 28, 28), device)), (labels, (torch.int64, (n,), device))):
        if (found := (a.dtype, tuple(a.shape), a.device)) != wanted:
            raise ValueError(f"given {found}, but images or labels must be {wanted}: one label an image")


def forward_and_backward(x, labels, weights, gradients):
    """The mean loss, `[1]`, of images `[B, 784]`, in nine launches. Writes the gradients of the weights and biases."""
    weights_1, bias_1, weights_2, bias_2 = weights
    to_weights_1, to_bias_1, to_weights_2, to_bias_2 = gradients
    sizes = (len(bias_1), len(bias_2), 1, len(bias_2), len(bias_1))
    empty = (x.new_empty(len(x), size) for size in sizes)
    activations, logits, losses, to_logits, to_hidden = empty
    product(x, weights_1.t(), activations, bias=bias_1, relu=True)
    product(activations, weights_2.t(), logits, bias=bias_2)
    cross_entropy(logits, labels, losses, to_logits)
    product(to_logits.t(), activations, to_weights_2)
    column_sums(to_logits, to_bias_2)
    product(to_logits, weights_2, to_hidden, gate=activations)
    product(to_hidden.t(), x, to_weights_1)
    column_sums(to_hidden, to_bias_1)
    return column_sums(losses, x.new_empty(1))


def make_kernel_step(model: MLP, *, lr: float = 0.01, momentum: float = 0.9) -> Callable:
    """SGD's step on `model`, in place, under the step contract (see mnist_gpu.training), in ten launches of kernels.

    `step.optimizer` is torch.optim.SGD around the same momenta, for CUDA graphs and checkpoints. A step raises
    ValueError for what is no batch (labels beyond 9 are not looked for).
    """
    device, parameters = model.hidden.weight.device, list(model.parameters())
    flat, weights = in_one_tensor(parameters)
    flat_momenta, momenta = in_one_tensor(map(torch.zeros_like, parameters))
    flat_gradients, gradients = in_one_tensor(map(torch.zeros_like, parameters))
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=momentum)
    for parameter, velocity in zip(parameters, momenta, strict=True):
        optimizer.state[parameter]["momentum_buffer"] = velocity

    @torch.no_grad()
    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        _check(images, labels, device)
        x, labels = images.reshape(-1, PIXELS).contiguous(), labels.contiguous()
        loss = forward_and_backward(x, labels, weights, gradients)
        sgd(flat, flat_momenta, flat_gradients, lr, momentum)
        return loss.view(())

    step.optimizer = optimizer
    return step
