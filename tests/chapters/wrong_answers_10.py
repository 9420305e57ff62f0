"""Wrong answers to the exercises of chapter 10: kernels, for a process that says how Triton is to run them."""

from wrong import WrongAnswers

from mnist_gpu.faster.with_triton import imported

triton, tl = imported()
wrong = WrongAnswers()


@wrong("10.1", "race for")
@triton.jit
def masked_by_the_matrix(a, scale, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * n + tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(a + at, mask=at < tl.num_programs(0) * n)
    tl.store(out + at, x * tl.load(scale + tl.program_id(0)), mask=at < tl.num_programs(0) * n)


@wrong("10.1", "wants to read what does not exist")
@triton.jit
def one_element_too_many(a, scale, out, n, BLOCK: tl.constexpr):
    row, j = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(a + row * n + j, mask=j <= n)
    tl.store(out + row * n + j, x * tl.load(scale + row), mask=j < n)


@wrong("10.1", "wants to write what does not exist")
@triton.jit
def only_the_load_is_masked(a, scale, out, n, BLOCK: tl.constexpr):
    row, j = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(a + row * n + j, mask=j < n)
    tl.store(out + row * n + j, x * tl.load(scale + row))


@wrong("10.2", "race for")
@triton.jit
def added_in_three_steps(labels, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    label = tl.load(labels + i, mask=i < n, other=0)
    tl.store(out + label, tl.load(out + label, mask=i < n) + 1, mask=i < n)


@wrong("10.2", "must not be counted")
@triton.jit
def masked_labels_counted(labels, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(out + tl.load(labels + i, mask=i < n, other=0), 1)


@wrong("10.2", "but should be")
@triton.jit
def a_one_for_every_label_there_is(labels, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_max(out + tl.load(labels + i, mask=i < n, other=0), 1, mask=i < n)


@triton.jit
def transposed_by(a, out, m, n, a_row, a_column, out_row, out_column, BLOCK):
    row, column = (tl.program_id(axis) * BLOCK + tl.arange(0, BLOCK) for axis in (0, 1))
    inside = (row[:, None] < m) & (column[None, :] < n)
    tile = tl.load(a + row[:, None] * a_row + column[None, :] * a_column, mask=inside)
    tl.store(out + column[None, :] * out_row + row[:, None] * out_column, tile, mask=inside)


@wrong("10.3", "what is it in a, and what in out")
@triton.jit
def only_the_result_is_mended(a, out, m, n, BLOCK: tl.constexpr):
    transposed_by(a, out, m, n, m, 1, m, 1, BLOCK)


@wrong("10.3", "wants to write what does not exist")
@triton.jit
def only_the_operand_is_mended(a, out, m, n, BLOCK: tl.constexpr):
    transposed_by(a, out, m, n, n, 1, n, 1, BLOCK)


@wrong("10.3", "but should be")
@triton.jit
def copied_as_it_lies(a, out, m, n, BLOCK: tl.constexpr):
    transposed_by(a, out, m, n, n, 1, 1, n, BLOCK)


@triton.jit
def shares_by(x, parts, out, n, WRITE: tl.constexpr, READ: tl.constexpr, MISTAKE: tl.constexpr, BLOCK):
    program, total = tl.program_id(0), 0.0
    i = program * BLOCK + tl.arange(0, BLOCK)
    own = tl.load(x + i, mask=i < n, other=None if MISTAKE == "anything" else 0.0)
    if WRITE and MISTAKE == "together":
        tl.atomic_add(parts, tl.sum(own, 0))
    elif WRITE:
        tl.store(parts + program, tl.sum(own, 0))
    tl.debug_barrier()
    if READ:
        for other in range(tl.num_programs(0)):
            total += tl.load(parts + (program if MISTAKE == "own" else other))
        tl.store(out + i, own / total, mask=i < n)


@wrong("10.4", "No barrier helps")
@triton.jit
def in_one_launch_with_a_barrier(x, parts, out, n, PHASE: tl.constexpr, BLOCK: tl.constexpr):
    shares_by(x, parts, out, n, True, PHASE == 1, "", BLOCK)


@wrong("10.4", "race for")
@triton.jit
def added_and_read_at_once(x, parts, out, n, PHASE: tl.constexpr, BLOCK: tl.constexpr):
    shares_by(x, parts, out, n, PHASE == 1, PHASE == 1, "together", BLOCK)


@wrong("10.4", "is inf")
@triton.jit
def read_first(x, parts, out, n, PHASE: tl.constexpr, BLOCK: tl.constexpr):
    shares_by(x, parts, out, n, PHASE == 1, PHASE == 0, "", BLOCK)


@wrong("10.4", "but should be")
@triton.jit
def each_by_its_own_block(x, parts, out, n, PHASE: tl.constexpr, BLOCK: tl.constexpr):
    shares_by(x, parts, out, n, PHASE == 0, PHASE == 1, "own", BLOCK)


@wrong("10.4", "is nan")
@triton.jit
def what_is_masked_counts_as_anything(x, parts, out, n, PHASE: tl.constexpr, BLOCK: tl.constexpr):
    shares_by(x, parts, out, n, PHASE == 0, PHASE == 1, "anything", BLOCK)
