"""The rungs of the ladder: each is the same training, changes what it says, and says what it lacks where."""

import subprocess
import sys

import pytest
import torch

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster import ladder
from mnist_gpu.faster.ladder import PLAIN, RUNGS, TEXTBOOK, WIDE, rungs
from mnist_gpu.measuring.climb import Climb
from mnist_gpu.measuring.workloads import train_part

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
NAMES = [rung.name for rung in RUNGS]
COMPILED, EPOCH = "compiled step", "compiled epoch"  # the second on a CPU only: see test_compiled_epoch.py
OWN = ["kernels of our own", "kernels of our own, as a CUDA graph"]
WEBGPU = [rung.name for rung in RUNGS if rung.hardware == "webgpu"]
EAGER = [rung for rung in RUNGS if not rung.missing(CPU) and rung.name not in (COMPILED, EPOCH)]


@pytest.fixture
def few_images(monkeypatch, mnist):
    """Every pipeline of the ladder is ten batches that are there at once. Lists the pipelines asked for."""
    few, asked = (mnist[0][:1280], mnist[1][:1280]), []

    def make_batches(kind, device="cpu", **loading):
        asked.append((kind, loading))
        return DeviceBatches(*few, device=device)

    monkeypatch.setattr(ladder, "make_batches", make_batches)
    return asked


@pytest.fixture(scope="module")
def climbs():
    """A climb of 20 steps on each device."""
    return {}


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_a_rung_has_the_losses_and_weights_of_the_plain_loop(rung, device, climbs, request):
    device = request.getfixturevalue(device) if device == "gpu" else CPU
    if rung.missing(device) or rung.name == EPOCH:
        pytest.skip(rung.missing(device) or "is tested elsewhere")
    climb = climbs.setdefault(device, Climb(device, steps=20))
    assert climb.expected[-1] < climb.expected[0] - 0.5  # it learns, so the comparison means something
    assert climb.reach(rung) is None
    difference = climb.reached[rung.name][2]["largest_loss_difference"]
    assert (difference > 1e-4) == (rung.name in WIDE[1:])  # which has another precision


def test_two_trainings_of_a_rung_share_nothing(few_images):
    for rung in EAGER:
        first, second = (train_part(rung.make(CPU, 16), 3).losses for _ in range(2))
        assert first == second, rung.name


def test_rungs_load_wait_and_fuse_as_they_say(few_images, monkeypatch):
    waits, made, item, sgd = [], [], torch.Tensor.item, torch.optim.SGD
    monkeypatch.setattr(torch.Tensor, "item", lambda self: waits.append(1) or item(self))
    monkeypatch.setattr(torch.optim, "SGD", lambda *a, **options: made.append(sgd(*a, **options)) or made[-1])
    counts, fused = {}, {}
    for rung in EAGER:
        made.clear()
        _, step, batches = rung.make(CPU, 16)
        for optimizer in made:
            (group,) = optimizer.param_groups
            assert (group["lr"], group["momentum"]) == (0.01, 0.9)
            fused[rung.name] = bool(group["fused"])
        waits.clear()
        for batch in batches:
            step(*batch)
        counts[rung.name] = len(waits)
    assert [name for name, count in counts.items() if count] == NAMES[:4] and set(counts.values()) == {0, 10}
    assert fused == {name: name in WIDE for name in fused} and len(fused) > 5
    few_images.clear()
    for rung in RUNGS[:5]:
        rung.make(CPU, 16)
    kinds = ("dataloader", {}), ("dataloader", {"workers": 2}), ("memory", {}), ("device", {}), ("device", {})
    assert few_images == [*kinds]


def test_rungs_come_in_the_order_of_the_ladder_each_after_the_one_that_it_changes():
    assert len(set(NAMES)) == len(NAMES) and NAMES[0] == TEXTBOOK and RUNGS[0].base is None
    others = [rung for rung in RUNGS if rung.base or rung.hardware != "webgpu"]  # which begins a ladder of its own
    assert all(rung.base in NAMES[: NAMES.index(rung.name)] for rung in others[1:])
    assert {PLAIN, *WIDE} <= set(NAMES) and rungs() == list(RUNGS)
    assert [r.name for r in rungs(iter([COMPILED, PLAIN, PLAIN, TEXTBOOK]))] == [TEXTBOOK, PLAIN, COMPILED]
    with pytest.raises(ValueError, match=r"moon, sky.*textbook, two workers, .*oneDNN"):
        rungs([TEXTBOOK, "sky", "moon"])


# What is missing where


def missing(device):
    return {rung.name: reason for rung in RUNGS if (reason := rung.missing(device))}


@pytest.fixture
def everything(monkeypatch):
    """A compiler, Triton, oneDNN and a GPU for WebGPU."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(ladder.sys, "platform", "linux")
    monkeypatch.setattr(ladder.shutil, "which", lambda name: f"/usr/bin/{name}")
    for name in ("triton_missing", "onednn_missing", "webgpu_missing"):
        monkeypatch.setattr(ladder, name, lambda: None)


NVIDIA_ONLY = {"CUDA graph of a step", "CUDA graph of an epoch", *OWN}
CPU_ONLY = {"backward written out", "written out, oneDNN", EPOCH, *WEBGPU}


def test_each_kind_of_device_lacks_what_was_made_for_the_other(everything):
    assert missing(CPU).keys() == NVIDIA_ONLY and missing(CUDA).keys() == CPU_ONLY
    assert missing(MPS).keys() == NVIDIA_ONLY | CPU_ONLY


@pytest.mark.parametrize(
    ("name", "on_a_cpu", "on_a_gpu"),
    [
        ("triton_missing", set(), {COMPILED, *OWN}),
        ("onednn_missing", {"written out, oneDNN"}, set()),
        ("webgpu_missing", set(WEBGPU), set()),
    ],
)
def test_what_a_rung_is_written_with_may_be_missing(everything, monkeypatch, name, on_a_cpu, on_a_gpu):
    monkeypatch.setattr(ladder, name, lambda: "is not there")
    assert missing(CPU).keys() == NVIDIA_ONLY | on_a_cpu and missing(CUDA).keys() == CPU_ONLY | on_a_gpu
    reasons = [*missing(CPU).values(), *missing(CUDA).values()]
    assert reasons.count("is not there") == len(on_a_cpu | on_a_gpu)


@pytest.mark.parametrize(
    ("platform", "cxx", "name"), [("linux", None, "g++"), ("win32", None, "cl"), ("linux", "icpx", "icpx")]
)
def test_compiling_for_a_cpu_needs_a_compiler(everything, monkeypatch, platform, cxx, name):
    monkeypatch.setattr(ladder.sys, "platform", platform)
    if cxx:
        monkeypatch.setenv("CXX", cxx)
    monkeypatch.setattr(ladder.shutil, "which", lambda asked: None if asked == name else asked)
    lacking = missing(CPU)
    assert lacking.keys() == NVIDIA_ONLY | {COMPILED, EPOCH} and f"({name})" in lacking[EPOCH]
    assert missing(CUDA).keys() == CPU_ONLY  # a GPU does not need it


def test_importing_the_ladder_leaves_triton_alone():
    code = "import sys, mnist_gpu.faster.ladder, mnist_gpu.training; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
