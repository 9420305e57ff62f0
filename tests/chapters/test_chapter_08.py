"""Chapter 08: what its cells count against cases by hand, and the room's times and tables."""

import ast
import math
from types import SimpleNamespace

import pytest
import torch
from test_answers import CELLS

from mnist_gpu.chapters import chapter_08 as lab


def defined(cell: str, name: str, **names):
    """What a cell of the notebook defines under this name, without what else it does; `names` are there before."""
    tree = ast.parse(next(c.source for c in CELLS["08"] if c.id == cell))
    kept = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    namespace = {"torch": torch, "math": math} | names
    exec(compile(ast.Module(kept, []), cell, "exec"), namespace)
    return namespace[name]


def test_a_card_is_full_once_its_schedulers_have_warps_to_change_between():
    card = lab.named("H100")  # 132 multiprocessors of 4 schedulers of 32 lanes; a multiply-add takes 4 cycles
    share = defined("inside-fill", "share_of_peak", threads=256)
    assert share(card, 1) == pytest.approx(100 / 132 / 2)  # eight warps, two for each scheduler: half of its cycles
    assert share(card, 132) == pytest.approx(50) and share(card, 264) == share(card, 528) == pytest.approx(100)
    assert share(card, 265) == pytest.approx(100 * 265 / 396)  # one multiprocessor has three workgroups
    assert defined("inside-fill", "share_of_peak", threads=32)(card, 132) == pytest.approx(100 / 16)
    share = defined("inside-fill", "share_of_peak", threads=288)  # nine warps: a scheduler has three, of two cycles
    assert share(lab.named("A100"), 108) == pytest.approx(75)


def test_what_a_kernel_needs_limits_the_resident_warps():
    resident, card = defined("inside-occupancy", "resident"), lab.named("A100")
    assert resident(card, 256, 32, 0) == 64 and resident(card, 1024, 32, 0) == 64  # as many as there are places
    assert resident(card, 32, 32, 0) == resident(card, 1, 32, 0) == 32  # 32 blocks of one warp
    assert resident(card, 256, 128, 0) == 16 and resident(card, 256, 255, 0) == 8  # registers
    assert resident(card, 128, 32, 48 * 1024) == 12  # three blocks' shared memory


def test_pieces_are_counted_once_whoever_asks_for_them():
    pieces = defined("inside-pieces", "pieces")
    assert [pieces(range(0, 32 * s, s)) for s in (1, 2, 4, 8, 16)] == [4, 8, 16, 32, 32]
    assert pieces([7] * 32) == 1 and pieces([7, 8]) == 2 and pieces(range(32), 64) == 2


def test_a_warp_whose_lanes_disagree_does_both_sides():
    both_sides = defined("inside-divergence", "both_sides")
    one = torch.zeros(lab.WARP, dtype=torch.bool)
    one[7] = True
    same = torch.ones_like(one)
    assert both_sides(torch.cat([same, ~same, one, ~one]), 40, 4).tolist() == [40, 4, 44, 44]


def test_whole_tiles_are_fetched_and_the_fewest_bytes_win():
    tile_of = lab.tile_of
    assert tile_of(65, 65, 65, [64, 33], 10**6, 1) == 33  # 8 rounds of 33 x 33 are less than 8 of 64 x 64
    assert tile_of(64, 64, 64, [64, 33, 32], 10**6, 2) == 32 and tile_of(64, 64, 64, [64, 32], 8 * 64**2 - 1, 1) == 32
    assert tile_of(64, 64, 64, [8], 511, 1) is None and tile_of(64, 64, 64, [8], 512, 65) is None


def test_a_table_says_what_is_published_and_what_follows():
    text = lab.inside([lab.named("T4"), lab.named("RTX 4090")])
    assert [line.split()[-2:] for line in text.splitlines()[-2:]] == [["8.1", "82.6"]] * 2  # by lanes; on the sheet


def test_as_many_calls_are_timed_together_as_take_long_enough(monkeypatch):
    asked, clock = [], [0.0]

    def wait():
        clock[0] += 1e-3 * len(asked[-1])

    gpu = SimpleNamespace(kernel=str.upper, submit=lambda calls: asked.append(calls), wait=wait)
    monkeypatch.setattr(lab.time, "perf_counter", lambda: clock[0])
    assert lab.timed(gpu, "copy", ("a", "out"), (4,), (2,), least=0.005) == pytest.approx([1e-3] * 10)
    assert [len(calls) for calls in asked] == [1, 2, 4, 8] + [8] * 10
    assert asked[-1][-1] == lab.Call("COPY", ("a", "out"), (4,), (2,))


def test_times_are_shown_relative_to_the_first_with_their_intervals():
    found = lab.relative("it", {4: [1.0, *[2.0] * 8, 4.0], 8: [1.0, 1.0, *[2.0] * 7, 4.0]})
    assert (found.xs, found.ys, found.lows, found.highs) == ([4, 8], [1, 1], [1, 0.5], [1, 1])


def test_a_compiled_kernel_is_timed_where_there_is_a_compiler(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    cpu = torch.device("cpu")
    for missing, expected in ((None, [10, 10]), ("there is no compiler", [])):
        monkeypatch.setattr(lab, "rungs", lambda names, why=missing: [SimpleNamespace(missing=lambda device: why)])
        assert [len(times) for times in lab.fused(cpu, (1, 3), count=10).values()] == expected
