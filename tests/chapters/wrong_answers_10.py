"""Wrong answers to the puzzles of chapter 10. They are kernels, for a process that says how Triton is to run them."""

from wrong import WrongAnswers

from mnist_gpu.faster.with_triton import imported

triton, tl = imported()
wrong = WrongAnswers()


@wrong("10.1", "A 0 takes part")
@triton.jit
def greatest_or_zero(a, out, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    best = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, n, BLOCK):
        j = start + tl.arange(0, BLOCK)
        best = tl.maximum(best, tl.load(a + row * n + j, mask=j < n, other=-float("inf")))
    tl.store(out + row, tl.max(best, 0))


@wrong("10.1", "greatest of the first block")
@triton.jit
def greatest_of_the_first_block(a, out, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    j = tl.arange(0, BLOCK)
    tl.store(out + row, tl.max(tl.load(a + row * n + j, mask=j < n, other=-float("inf")), 0))


@wrong("10.1", "the compiler does not")
@triton.jit
def greatest_from_a_scalar_on(a, out, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    best = -float("inf")
    for start in range(0, n, BLOCK):
        j = start + tl.arange(0, BLOCK)
        best = tl.maximum(best, tl.load(a + row * n + j, mask=j < n, other=-float("inf")))
    tl.store(out + row, tl.max(best, 0))


@wrong("10.2", "one is lost")
@triton.jit
def added_in_three_steps(labels, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    label = tl.load(labels + i, mask=i < n, other=0)
    tl.store(out + label, tl.load(out + label, mask=i < n) + 1, mask=i < n)


@wrong("10.2", "counted as zeros")
@triton.jit
def masked_labels_counted(labels, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(out + tl.load(labels + i, mask=i < n, other=0), 1)


@wrong("10.2", "same label overwrite")
@triton.jit
def a_one_for_every_label_there_is(labels, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    label = tl.load(labels + i, mask=i < n, other=0)
    tl.atomic_max(out + label, 1, mask=i < n)


@triton.jit
def gradient(g, x, out, m, n, k, MISTAKE: tl.constexpr, BLOCK):
    """The solution with one of several mistakes."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = (0 if MISTAKE == "first block" else tl.program_id(1)) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for start in range(0, m, BLOCK):
        image = start + tl.arange(0, BLOCK)
        at = row[:, None] * m + image[None, :] if MISTAKE == "lies" else image[None, :] * n + row[:, None]
        other = None if MISTAKE == "anything" else 0.0
        g_tile = tl.load(g + at, mask=(row[:, None] < n) & (image[None, :] < m), other=other)
        x_exists = (image[:, None] < m + BLOCK * (MISTAKE == "edge")) & (column[None, :] < k)
        x_tile = tl.load(x + image[:, None] * k + column[None, :], mask=x_exists, other=0.0)
        total = tl.dot(g_tile, x_tile, None if MISTAKE == "last" else total, input_precision="ieee")
    inside = (row[:, None] < n) & (column[None, :] < k)
    tl.store(out + row[:, None] * k + column[None, :], total, mask=inside)


@wrong("10.3", "goes beyond an edge")
@triton.jit
def beyond_the_last_image(g, x, out, m, n, k, BLOCK: tl.constexpr):
    gradient(g, x, out, m, n, k, "edge", BLOCK)


@wrong("10.3", "does each begin at one of its own")
@triton.jit
def the_first_columns_by_all(g, x, out, m, n, k, BLOCK: tl.constexpr):
    gradient(g, x, out, m, n, k, "first block", BLOCK)


@wrong("10.3", "as if it were [n, m]")
@triton.jit
def read_as_it_lies(g, x, out, m, n, k, BLOCK: tl.constexpr):
    gradient(g, x, out, m, n, k, "lies", BLOCK)


@wrong("10.3", "name what it counts as")
@triton.jit
def images_masked_as_anything(g, x, out, m, n, k, BLOCK: tl.constexpr):
    gradient(g, x, out, m, n, k, "anything", BLOCK)


@wrong("10.3", "last tile's product alone")
@triton.jit
def the_last_product_alone(g, x, out, m, n, k, BLOCK: tl.constexpr):
    gradient(g, x, out, m, n, k, "last", BLOCK)
