"""The page that fills a multiprocessor: by the rules of NVIDIA's own calculator, and chapter 08's."""

import importlib.util
import itertools
import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest
from moving import PLAY, at

from mnist_gpu.measuring.prediction import cards, named

ROOT = PLAY.parents[1]
RULES = json.loads((ROOT / "site/play/occupancy.json").read_text("utf-8"))
# Worked out by hand, by the rules of cuda_occupancy.h: card, threads, registers, bytes of shared memory; blocks, warps,
# what allows no more.
BY_HAND = [
    # 8 warps of 32 x 32 = 1,024 registers: 64 / 8 blocks, and 65,536 / 4 / 1,024 = 16 warps in each quarter, 64 / 8
    ("A100", 256, 32, 0, 8, 64, ["warps", "registers"]),
    # 33 registers: 1,056, so 1,280 a warp; 16,384 / 1,280 = 12 warps in a quarter, 48 in all, 48 / 8
    ("A100", 256, 33, 0, 6, 48, ["registers"]),
    # 1 warp a block: 32 places for blocks, of 64 warps
    ("A100", 32, 32, 0, 32, 32, ["blocks"]),
    # T4: 32 places for warps, 16 for blocks
    ("T4", 32, 32, 0, 16, 16, ["blocks"]),
    ("T4", 1024, 64, 0, 1, 32, ["warps", "registers"]),
    # 48 KiB and 1 KiB reserved: 164 / 49 = 3; 228 / 49 = 4; 100 / 49 = 2
    ("A100", 256, 32, 49152, 3, 24, ["shared"]),
    ("H100", 256, 32, 49152, 4, 32, ["shared"]),
    ("RTX 4090", 256, 32, 49152, 2, 16, ["shared"]),
    # on a T4 and a V100 none is reserved: 64 / 48 and 96 / 48
    ("T4", 256, 32, 49152, 1, 8, ["shared"]),
    ("V100", 256, 32, 49152, 2, 16, ["shared"]),
    # one byte more than a third of a V100: 32,769 bytes, in units of 256 33,024; 98,304 / 33,024 = 2
    ("V100", 256, 32, 32769, 2, 16, ["shared"]),
    # 163 KiB and 1: all of an A100; one byte more fits no block
    ("A100", 32, 16, 163 * 1024, 1, 1, ["shared"]),
    ("A100", 32, 16, 163 * 1024 + 1, 0, 0, ["shared"]),
    # 255 registers: 8,160, so 8,192 a warp; 2 in a quarter, 8 in all: a block of 8 warps, none of 9
    ("H100", 256, 255, 0, 1, 8, ["registers"]),
    ("H100", 288, 255, 0, 0, 0, ["registers"]),
    # 240 threads are 8 warps, 100 are 4
    ("RTX 4090", 240, 64, 10240, 4, 32, ["registers"]),
    ("RTX 4090", 100, 40, 0, 12, 48, ["warps", "registers"]),
]
CALCULATOR = r"""
#include <cstdio>
#include "cuda_occupancy.h"
int main() {
    int major, minor, warps, shared, reserved, block, registers, bytes;
    while (scanf("%d %d %d %d %d", &major, &minor, &warps, &shared, &reserved) == 5) {
        scanf("%d %d %d", &block, &registers, &bytes);
        cudaOccDeviceProp card; cudaOccFuncAttributes kernel; cudaOccDeviceState state; cudaOccResult result;
        card.computeMajor = major; card.computeMinor = minor; card.maxThreadsPerBlock = 1024; card.warpSize = 32;
        card.maxThreadsPerMultiprocessor = warps * 32; card.regsPerBlock = 65536; card.regsPerMultiprocessor = 65536;
        card.sharedMemPerBlock = 49152; card.sharedMemPerMultiprocessor = shared; card.numSms = 1;
        card.sharedMemPerBlockOptin = shared - reserved; card.reservedSharedMemPerBlock = reserved;
        kernel.maxThreadsPerBlock = 1024; kernel.numRegs = registers; kernel.sharedSizeBytes = 0;
        kernel.partitionedGCConfig = PARTITIONED_GC_OFF; kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
        kernel.maxDynamicSharedSizeBytes = bytes; kernel.numBlockBarriers = 1;
        int failed = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &card, &kernel, &state, block, bytes);
        printf("%d\n", failed ? -1 : result.activeBlocksPerMultiprocessor);
    }
}
"""


def header() -> Path | None:
    """NVIDIA's calculator, which PyTorch's builds for CUDA bring with them."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in spec.submodule_search_locations] if spec else []
    return next((path for folder in folders for path in sorted(folder.glob("*/include/cuda_occupancy.h"))), None)


@pytest.fixture(scope="module")
def address(serve):
    return f"{serve(PLAY)}/occupancy.html"


@pytest.fixture
def page(visit, address):
    return visit(address)


def test_what_was_worked_out_by_hand(page):
    found = page.evaluate("cases => cases.map(c => occupancy(...c))", [case[:4] for case in BY_HAND])
    for case, one in zip(BY_HAND, found, strict=True):
        assert (one["blocks"], one["warps"], one["holds"]) == case[4:], case
        assert one["share"] == pytest.approx(case[5] / named(case[0]).get("warps"))


def test_it_allows_what_nvidias_own_calculator_allows(page, tmp_path):
    if not (calculator := header()) or not (compiler := shutil.which("g++")):
        pytest.skip("cuda_occupancy.h (of PyTorch's builds for CUDA) or g++ is not here")
    program = tmp_path / "calculator"
    (tmp_path / "calculator.cpp").write_text(CALCULATOR, encoding="utf-8")
    subprocess.run([compiler, "-w", f"-I{calculator.parent}", tmp_path / "calculator.cpp", "-o", program], check=True)
    blocks = (16, 32, 96, 128, 240, 256, 288, 384, 512, 640, 1024)
    registers = (16, 24, 31, 32, 33, 40, 64, 65, 96, 128, 168, 255)
    shared = (0, 1, 1024, 3000, 16384, 32769, 49152, 65536, 101376, 166912, 166913, 232448, 233472)
    cases = [*itertools.product(RULES["capability"], blocks, registers, shared)]
    lines = []
    for name, *case in cases:
        card, capability = named(name), RULES["capability"][name]
        of_card = card.get("warps"), card.get("shared memory"), RULES["rules"][capability]["shared reserved"]
        lines.append(" ".join(map(str, [*capability.split("."), *of_card, *case])))
    ran = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
    theirs = [int(line) for line in ran.stdout.split()]
    ours = page.evaluate("cases => cases.map(c => occupancy(...c).blocks)", cases)
    assert len(theirs) == len(cases) and not [(c, a, b) for c, a, b in zip(cases, ours, theirs, strict=True) if a != b]


def test_chapter_08_finds_the_same(page):
    """Its rows round nothing up."""
    rows = [(256, 32, 0), (32, 32, 0), (256, 128, 0), (256, 32, 48 * 1024)]
    cells = json.loads((ROOT / "notebooks/08_inside_the_gpu.ipynb").read_text("utf-8"))["cells"]
    (printed,) = ("".join(c["outputs"][0]["text"]) for c in cells if c["id"] == "inside-occupancy")
    for row, line in zip(rows, printed.splitlines()[2:], strict=True):
        shares = [
            page.evaluate("c => occupancy(...c).share", [name, *row]) for name in ("T4", "A100", "H100", "RTX 4090")
        ]
        assert [f"{share:.0%}" for share in shares] == line.split()[-4:]


def test_waiting_is_hidden_by_littles_law_as_in_chapter_08(page):
    for name in RULES["capability"]:
        card = named(name)
        for wait, level in (("memory", "memory"), ("L2", "L2"), ("shared", "shared memory")):
            cycles, rate = (
                card.get(f"{level} cycles"),
                card.bandwidth if wait == "memory" else card.get(f"{level} rate"),
            )
            found = page.evaluate("c => littlesLaw(...c)", [name, wait])
            if cycles is None:
                assert found is None
                continue
            needed = rate * (cycles / card.get("clock")) / (32 * 4) / card.get("multiprocessors")
            assert (found["cycles"], found["needed"]) == (cycles, pytest.approx(needed, rel=1e-6))
        if cycles := card.get("arithmetic cycles"):
            found = page.evaluate("name => littlesLaw(name, 'arithmetic').needed", name)
            # chapter 08's rounds: with so many warps on its schedulers the lanes work as long as a warp waits
            lanes = card.get("lanes") / card.get("multiprocessors") / 4
            assert math.ceil(found / 4) * 32 / lanes == cycles


def test_the_sentence_says_what_the_figure_shows(page):
    said = at(page, card="H100", threads=256, registers=128, shared=0, wait="memory", ahead=1)
    assert "8 warps, and 2 such blocks fit. 16 of 64 places for warps are taken: occupancy 25 %" in said
    # 3.35e12 x 400 / 1.98e9 / 128 / 132 = 40.06
    assert "registers. Memory answers after about 400 cycles. To keep it busy, about 40 instructions" in said
    assert "16 are, which is enough for 40 % of the rate at the most" in said
    assert page.locator("#slots .taken").count() == 16 and page.locator("#slots .free").count() == 48
    assert "48 are, so the waiting is hidden" in at(page, card="H100", registers=128, wait="memory", ahead=3)
    assert "about 40 instructions" in (said := at(page, card="A100", registers=41, wait="memory", ahead=1))
    assert "40 are, so the waiting is hidden" in said  # as exact as "about 40" is
    said = at(page, card="A100", threads=48, registers=32, shared=16, wait="arithmetic", ahead=1)
    assert "The last warp of each block has only 16 threads." in said and "all lanes busy, 8 instructions" in said
    assert "not published" in at(page, card="T4", shared=0, wait="L2")
    said = at(page, card="T4", shared=65)
    assert "no such block fits" in said and "shared memory" in said and page.locator("#slots .taken").count() == 0
    assert "places for warps and registers" in at(page, card="V100", threads=256, registers=32, shared=0)
    assert page.locator("#limits .holds").count() == 2


def test_all_that_it_takes_from_elsewhere_has_a_source(page):
    links = page.evaluate("[...document.querySelectorAll('#figures a')].map(a => a.href)")
    used = ("warps", "blocks", "registers", "shared memory", "memory cycles", "lanes")
    own = {f.source[1] for f in named("A100").figures if f.quantity in used}
    assert own | {source["url"] for source in RULES["sources"]} <= {*links}
    assert {*RULES["capability"].values()} == {*RULES["rules"]}
    has = ("warps", "blocks", "registers", "shared memory")
    assert {*RULES["capability"]} == {name for name, card in cards().items() if all(card.get(q) for q in has)}
