"""Wrong answers to the exercises of chapter 10: its solutions, each with something in them replaced."""

from pathlib import Path

import nbformat
from wrong import WrongAnswers

from mnist_gpu.chapters.chapter_10.compiled import kernel_from

NOTEBOOK = next((Path(__file__).resolve().parents[2] / "notebooks").glob("10_*.ipynb"))
SOLUTIONS = {
    cell.source.splitlines()[0].removeprefix("# The solution of "): cell.source.split("\n\n\nlab.check")[0]
    for cell in nbformat.read(NOTEBOOK, 4).cells
    if "solution" in cell.metadata.get("tags", [])
}
wrong = WrongAnswers()


def replaced(exercise: str, hint: str, *pairs: tuple[str, str]) -> None:
    source = "import triton\nimport triton.language as tl\n" + SOLUTIONS[exercise]
    for old, new in pairs:
        assert old in source
        source = source.replace(old, new)
    wrong.value(exercise, hint, kernel_from(source))


# Masked by the matrix's end, an element too late, only in the load.
replaced("10.1", "race for", ("mask=j < n", "mask=row * n + j < n * tl.num_programs(0)"))
replaced("10.1", "wants to read what does not exist", ("n + j, mask=j < n", "n + j, mask=j <= n"))
replaced("10.1", "wants to write what does not exist", ("scale + row), mask=j < n", "scale + row)"))
replaced("10.1", "no attribute 'program'\").", ("tl.program_id(1)", "tl.program(1)"))
# In three steps, without the mask, a 1 for every label there is.
in_three_steps = "tl.store(out + label, tl.load(out + label, mask=i < n) + 1, mask=i < n)"
replaced("10.2", "race for", ("tl.atomic_add(out + label, 1, mask=i < n)", in_three_steps))
replaced("10.2", "must not be counted", ("1, mask=i < n", "1"))
replaced("10.2", "but should be", ("atomic_add", "atomic_max"))
# One of the two strides mended, the other one mended, copied as it lies.
replaced("10.3", "what is it in a, and what in out", ("* n +", "* m +"))
replaced("10.3", "wants to write what does not exist", ("* m +", "* n +"))
replaced("10.3", "but should be", ("column[None, :] * m + row[:, None]", "row[:, None] * n + column[None, :]"))
# In one launch with a barrier, all added to one part and read at once.
in_one_launch = ("if PHASE == 0", "if PHASE == 1"), ("    else:", "        tl.debug_barrier()\n    if PHASE == 1:")
replaced("10.4", "No barrier helps", *in_one_launch)
replaced("10.4", "race for", *in_one_launch, ("tl.store(parts + program", "tl.atomic_add(parts"))
# In the first launch only.
replaced("10.4", "wants to read what does not exist", ("PHASE == 0:\n", "PHASE == 0:\n        tl.load(x + i)\n"))
# Read before written, only its own part read, masked elements that may be anything; what only the interpreter takes.
replaced("10.4", "is inf", ("if PHASE == 0", "if PHASE == 1"))
replaced("10.4", "but should be", ("parts + other", "parts + program"))
replaced("10.4", "is nan", ("mask=i < n, other=0.0", "mask=i < n"))
replaced("10.4", "the compiler does not", ("total = 0.0", "total = (lambda: 0.0)()"))
