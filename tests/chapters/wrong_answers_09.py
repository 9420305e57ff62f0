"""Wrong answers to the puzzles of chapter 09. They are kernels, for a process that says how Triton is to run them."""

from wrong import WrongAnswers

from mnist_gpu.faster.with_triton import imported

triton, tl = imported()
wrong = WrongAnswers()


@wrong("09.1", "Loading needs a mask")
@triton.jit
def turned_without_a_mask(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + n - 1 - i), mask=i < n)


@wrong("09.1", "n - 1, not n")
@triton.jit
def turned_from_n_on(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + n - i, mask=i < n), mask=i < n)


@wrong("09.1", "That is a copy")
@triton.jit
def copied(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, mask=i < n), mask=i < n)


@wrong("09.1", "turned by itself")
@triton.jit
def every_block_turned(x, out, n, BLOCK: tl.constexpr):
    start = tl.program_id(0) * BLOCK
    i = start + tl.arange(0, BLOCK)
    there = tl.minimum(start + BLOCK, n) - 1 - tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + there, mask=i < n), mask=i < n)


@wrong("09.1", "does each begin at one of its own")
@triton.jit
def the_first_block_by_all(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + n - 1 - i, mask=i < n), mask=i < n)


@wrong("09.1", "where do the blocks begin")
@triton.jit
def from_the_second_block_on(x, out, n, BLOCK: tl.constexpr):
    i = (tl.program_id(0) + 1) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + n - 1 - i, mask=i < n), mask=i < n)


@wrong("09.1", "element 0 is -")
@triton.jit
def turned_and_one_more(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + n - 1 - i, mask=i < n) - 1.0 / (i + 1), mask=i < n)


@wrong("09.1", "must be a power of 2")
@triton.jit
def blocks_of_three(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, 3)
    tl.store(out + i, tl.load(x + n - 1 - i, mask=i < n), mask=i < n)


@wrong("09.2", "ask for row and column")
@triton.jit
def rows_masked_alone(a, bias, out, m, n, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = row[:, None] * n + column[None, :]
    inside = (row[:, None] < m) & (column[None, :] >= 0)
    tl.store(out + at, tl.load(a + at, mask=inside) + tl.load(bias + column, mask=column < n)[None, :], mask=inside)


@wrong("09.2", "along the wrong side")
@triton.jit
def a_bias_for_every_column(a, bias, out, m, n, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = row[:, None] * n + column[None, :]
    inside = (row[:, None] < m) & (column[None, :] < n)
    added = tl.load(bias + row, mask=row < tl.minimum(m, n), other=0.0)[:, None]
    tl.store(out + at, tl.load(a + at, mask=inside) + added, mask=inside)


@wrong("09.2", "bias is not added")
@triton.jit
def without_bias(a, bias, out, m, n, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = row[:, None] * n + column[None, :]
    inside = (row[:, None] < m) & (column[None, :] < n)
    tl.store(out + at, tl.load(a + at, mask=inside), mask=inside)


@wrong("09.3", "have to change places")
@triton.jit
def as_it_was(a, out, m, n, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (row[:, None] < m) & (column[None, :] < n)
    at = row[:, None] * n + column[None, :]
    tl.store(out + at, tl.load(a + at, mask=inside), mask=inside)


@wrong("09.3", "out has n rows of m")
@triton.jit
def with_rows_of_n(a, out, m, n, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (row[:, None] < m) & (column[None, :] < n)
    value = tl.load(a + row[:, None] * n + column[None, :], mask=inside)
    tl.store(out + column[None, :] * n + row[:, None], value, mask=inside)


@wrong("09.3", "write the same element")
@triton.jit
def with_rows_of_one(a, out, m, n, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (row[:, None] < m) & (column[None, :] < n)
    value = tl.load(a + row[:, None] * n + column[None, :], mask=inside)
    tl.store(out + column[None, :] + row[:, None], value, mask=inside)


@wrong("09.4", "A 0 takes part")
@triton.jit
def greatest_or_zero(a, out, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    best = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, n, BLOCK):
        j = start + tl.arange(0, BLOCK)
        best = tl.maximum(best, tl.load(a + row * n + j, mask=j < n, other=-float("inf")))
    tl.store(out + row, tl.max(best, 0))


@wrong("09.4", "greatest of the first block")
@triton.jit
def greatest_of_the_first_block(a, out, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    j = tl.arange(0, BLOCK)
    tl.store(out + row, tl.max(tl.load(a + row * n + j, mask=j < n, other=-float("inf")), 0))


@wrong("09.4", "greatest of the last block")
@triton.jit
def greatest_of_the_last_block(a, out, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    best = tl.full((BLOCK,), -float("inf"), dtype=tl.float32)
    for start in range(0, n, BLOCK):
        j = start + tl.arange(0, BLOCK)
        best = tl.load(a + row * n + j, mask=j < n, other=-float("inf"))
    tl.store(out + row, tl.max(best, 0))


@wrong("09.4", "behind its end the next row begins")
@triton.jit
def greatest_without_a_mask(a, out, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    best = tl.full((BLOCK,), -float("inf"), dtype=tl.float32)
    for start in range(0, n, BLOCK):
        best = tl.maximum(best, tl.load(a + row * n + start + tl.arange(0, BLOCK)))
    tl.store(out + row, tl.max(best, 0))


@wrong("09.5", "one is lost")
@triton.jit
def added_in_three_steps(labels, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    label = tl.load(labels + i, mask=i < n, other=0)
    tl.store(out + label, tl.load(out + label, mask=i < n) + 1, mask=i < n)


@wrong("09.5", "counted as zeros")
@triton.jit
def masked_labels_counted(labels, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(out + tl.load(labels + i, mask=i < n, other=0), 1)


@wrong("09.5", "last block is not full")
@triton.jit
def labels_without_a_mask(labels, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(out + tl.load(labels + i), 1, mask=i < n)


@wrong("09.5", "same label overwrite")
@triton.jit
def a_one_for_every_label_there_is(labels, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    label = tl.load(labels + i, mask=i < n, other=0)
    tl.atomic_max(out + label, 1, mask=i < n)


@wrong("09.6", "as if it were [n, m]")
@triton.jit
def read_as_it_lies(g, x, out, m, n, k, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for start in range(0, m, BLOCK):
        image = start + tl.arange(0, BLOCK)
        g_exists = (row[:, None] < n) & (image[None, :] < m)
        g_tile = tl.load(g + row[:, None] * m + image[None, :], mask=g_exists, other=0.0)
        x_exists = (image[:, None] < m) & (column[None, :] < k)
        x_tile = tl.load(x + image[:, None] * k + column[None, :], mask=x_exists, other=0.0)
        total = tl.dot(g_tile, x_tile, total, input_precision="ieee")
    inside = (row[:, None] < n) & (column[None, :] < k)
    tl.store(out + row[:, None] * k + column[None, :], total, mask=inside)


@wrong("09.6", "last tile is not full along m")
@triton.jit
def images_not_masked(g, x, out, m, n, k, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for start in range(0, m, BLOCK):
        image = start + tl.arange(0, BLOCK)
        g_tile = tl.load(g + image[None, :] * n + row[:, None], mask=row[:, None] < n, other=0.0)
        x_exists = (image[:, None] < m) & (column[None, :] < k)
        x_tile = tl.load(x + image[:, None] * k + column[None, :], mask=x_exists, other=0.0)
        total = tl.dot(g_tile, x_tile, total, input_precision="ieee")
    inside = (row[:, None] < n) & (column[None, :] < k)
    tl.store(out + row[:, None] * k + column[None, :], total, mask=inside)


@wrong("09.6", "last tile's product alone")
@triton.jit
def the_last_product_alone(g, x, out, m, n, k, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for start in range(0, m, BLOCK):
        image = start + tl.arange(0, BLOCK)
        g_exists = (row[:, None] < n) & (image[None, :] < m)
        g_tile = tl.load(g + image[None, :] * n + row[:, None], mask=g_exists, other=0.0)
        x_exists = (image[:, None] < m) & (column[None, :] < k)
        x_tile = tl.load(x + image[:, None] * k + column[None, :], mask=x_exists, other=0.0)
        total = tl.dot(g_tile, x_tile, input_precision="ieee")
    inside = (row[:, None] < n) & (column[None, :] < k)
    tl.store(out + row[:, None] * k + column[None, :], total, mask=inside)


@wrong("09.6", "first tile along m")
@triton.jit
def the_first_tile_in_every_round(g, x, out, m, n, k, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for _ in range(0, m, BLOCK):
        image = tl.arange(0, BLOCK)
        g_exists = (row[:, None] < n) & (image[None, :] < m)
        g_tile = tl.load(g + image[None, :] * n + row[:, None], mask=g_exists, other=0.0)
        x_exists = (image[:, None] < m) & (column[None, :] < k)
        x_tile = tl.load(x + image[:, None] * k + column[None, :], mask=x_exists, other=0.0)
        total = tl.dot(g_tile, x_tile, total, input_precision="ieee")
    inside = (row[:, None] < n) & (column[None, :] < k)
    tl.store(out + row[:, None] * k + column[None, :], total, mask=inside)
