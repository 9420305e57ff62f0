"""Chapter 09: its counting of bytes, and the programs in its cells."""

import ast

import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager
from test_answers import CELLS

from mnist_gpu.chapters import chapter_09 as lab
from mnist_gpu.model import make_model


@pytest.fixture
def cells():
    """The functions and imports of the notebook's cells."""
    code, kinds = [c for c in CELLS["09"] if c.cell_type == "code"], ast.FunctionDef | ast.Import | ast.ImportFrom
    python, found = TransformerManager().transform_cell, {"lab": lab}
    kept = [n for c in code for n in ast.parse(python(c.source)).body if isinstance(n, kinds)]
    exec(compile(ast.Module(kept, []), "chapter 09", "exec"), found)
    return found


def test_live_bytes_are_those_of_the_tensors_that_are_there():
    before = torch.zeros(3)
    with lab.LiveBytes() as live:
        a = torch.zeros(1000)
        b = a.view(10, 100) + 1
        c = b.t()  # no new storage
        del b
        assert live.now == 8000
        del c
        before.add_(1)  # made earlier, and so not counted
    assert (live.now, live.peak, live.history[2], len(a)) == (4000, 8000, ("add", 8000), 1000)


@pytest.mark.parametrize(("width", "batch"), [(1, 1), (37, 301), (301, 37)])
def test_what_is_counted_on_meta_is_there_on_the_cpu(width, batch, cells):
    found = cells["contents"](cells["deep"](width).to("meta"), batch)
    # What the ReLUs give, the logarithms of the probabilities, the sum of the images' weights, and the loss.
    assert found["activations"] == 4 * (batch * (17 * width + 10) + 2) and found["batch"] == batch * (4 * 784 + 8)
    held = 2 * found["weights"] + max(found["weights"], found["activations"] + found["batch"])
    assert cells["memory"](width, batch) == cells["memory"](width, batch, "cpu") > held


def test_parts_and_pieces_give_the_same_gradient_in_less_memory(cells):
    cells |= {"images": torch.rand(2048, 1, 28, 28).double(), "labels": torch.randint(10, (2048,))}
    cells |= {"model": make_model(64).double(), "tower": cells["deep"](32).double()}
    for model, way, few, again in (("model", "accumulate", 8, 0), ("tower", "in_pieces", 4, 12)):
        one, right = cells["cost_of"](cells[way], 1), [p.grad.clone() for p in cells[model].parameters()]
        found = cells["cost_of"](cells[way], few)
        assert found[0] < one[0] and found[2] > one[2] and found[1] - one[1] == again * 2 * 2048 * 32**2
        torch.testing.assert_close([p.grad for p in cells[model].parameters()], right, rtol=1e-10, atol=1e-14)


@pytest.mark.cuda
def test_the_allocators_peak_is_not_below_what_is_counted(gpu, cells):
    cells["memory"](512, 64, gpu)  # which sets things up
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    counted = cells["memory"](512, 4096, gpu)
    most = torch.cuda.max_memory_allocated() - before
    assert counted <= most < 1.2 * counted + 32 * 2**20  # it rounds up, and products take some work space
