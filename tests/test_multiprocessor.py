"""The simulated scheduler: cases by hand, Little's law, and warps whose lanes disagree."""

import itertools
import random

import pytest
import torch

from mnist_gpu.measuring.chips import WARP
from mnist_gpu.measuring.multiprocessor import LOAD, both_sides, hidden, littles_law, simulate


@pytest.mark.parametrize(
    ("warps", "busy", "per_cycle"),
    [
        (1, 4 / 20, 1 / 20),  # four instructions, the load, and 15 cycles more to wait
        (2, 8 / 20, 2 / 20),
        (4, 16 / 20, 4 / 20),  # each issues five of every 20 cycles: there is none left
        (5, 16 / 20, 4 / 20),
        (9, 16 / 20, 4 / 20),
    ],
)
def test_a_case_by_hand(warps, busy, per_cycle):
    seen = simulate([4] * warps, latency=16, cycles=2000)
    assert seen.busy == pytest.approx(busy) and seen.bytes_per_cycle == pytest.approx(per_cycle * LOAD)
    assert seen.bytes_in_flight == pytest.approx(16 * per_cycle * LOAD)


def test_a_memory_that_takes_a_load_every_ten_cycles_sets_the_pace():
    seen = simulate([1] * 60, latency=100, interval=10, cycles=2000)
    assert seen.busy == pytest.approx(1 / 10) and seen.bytes_per_cycle == pytest.approx(LOAD / 10)
    assert seen.bytes_in_flight == pytest.approx(10 * LOAD)  # more warps wait, but no more bytes are on their way


def test_the_warp_that_had_the_last_turn_goes_on_and_the_others_follow_in_order():
    assert simulate([3, 8], latency=2, cycles=1300).busy == pytest.approx((3 + 8) / 13)  # turns of four and nine cycles
    assert simulate([3, 8], latency=1, cycles=1300).busy == pytest.approx(3 / 4)  # the first never waits
    assert simulate([8, 3], latency=1, cycles=1350).busy == pytest.approx(8 / 9)


def test_its_curve_is_littles_law():
    random.seed(0)
    for _ in range(30):
        latency, interval = random.randint(20, 400), random.choice([1, 2.5, 7, 12])
        compute, warps = random.randint(1, 30), random.randint(1, 48)
        seen = simulate([compute] * warps, latency=latency, interval=interval, cycles=6000)
        assert seen.bytes_in_flight == pytest.approx(littles_law(seen.bytes_per_cycle, latency), rel=0.03)
        assert seen.bytes_in_flight <= min(warps * LOAD, littles_law(LOAD / interval, latency)) * 1.03
        assert seen.busy == pytest.approx(hidden(warps, compute, latency, interval), rel=0.08)


def test_warps_are_added_until_the_rate_is_reached_that_littles_law_says():
    needed = littles_law(LOAD / 10, 400) / LOAD  # warps, a load each
    rates = [simulate([2] * n, latency=400, interval=10).bytes_per_cycle for n in (10, 20, 30, 41, 60)]
    assert needed == 40
    assert [r / rates[0] for r in rates[:3]] == pytest.approx(
        [1, 2, 3], rel=0.02
    )  # on the way up each warp adds its share
    assert rates[3:] == pytest.approx([LOAD / 10] * 2, rel=0.01)


def test_more_warps_never_do_less():
    found = [simulate([6] * n, latency=200, interval=4) for n in (1, 2, 4, 8, 16, 32, 64)]
    assert all(a.busy <= b.busy * 1.01 for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(
    "wrong", [{"compute": []}, {"compute": [0]}, {"latency": 0}, {"interval": 0.0}, {"cycles": 0}, {"interval": -1}]
)
def test_what_makes_no_sense_is_refused(wrong):
    arguments = {"compute": [1], "latency": 10, "interval": 1, "cycles": 10} | wrong
    with pytest.raises(ValueError, match="must be"):
        simulate(arguments.pop("compute"), **arguments)


def test_a_warp_whose_lanes_disagree_does_both_sides():
    all_yes, all_no = torch.ones(WARP), torch.zeros(WARP)
    one = torch.zeros(WARP)
    one[7] = 1
    assert both_sides(torch.cat([all_yes, all_no, one, 1 - one]), 40, 4) == [40, 4, 44, 44]
    assert both_sides(torch.cat([one, torch.ones(5)]), 40, 4) == [44]  # no whole warp is left
    assert both_sides(torch.stack([all_yes, all_no]).bool(), 1, 2) == [1, 2]
    with pytest.raises(ValueError, match="warps is 0"):
        both_sides(torch.ones(31), 1, 1)


def test_sorted_pixels_diverge_less_and_so_more_of_them_are_done_a_cycle():
    pixels = torch.rand(64 * WARP, generator=torch.Generator().manual_seed(0)) < 0.5
    mixed, apart = (both_sides(p, 40, 4) for p in (pixels, pixels.sort().values))
    assert sum(n == 44 for n in mixed) == 64 and sum(n == 44 for n in apart) <= 1
    rates = [simulate(n[:: len(n) // 16], latency=100, interval=1).bytes_per_cycle for n in (mixed, apart)]
    assert rates[1] > 1.5 * rates[0]
