import subprocess
import sys

import pytest
import torch
from agreement import assert_same_losses

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster import ladder
from mnist_gpu.faster.ladder import PLAIN, RUNGS, TEXTBOOK, WIDE, rungs
from mnist_gpu.measuring.workloads import train_part

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
NAMES = [rung.name for rung in RUNGS]
COMPILED, EPOCH = "compiled step", "compiled epoch"  # the second on a CPU only
OWN = ["kernels of our own", "kernels of our own, as a CUDA graph"]
WEBGPU = [rung.name for rung in RUNGS if rung.hardware == "webgpu"]
EAGER = [rung for rung in RUNGS if not rung.missing(CPU) and rung.name not in (COMPILED, EPOCH)]


def named(name):
    (rung,) = rungs([name])
    return rung


def losses_of(rung, device, steps, hidden=128):
    losses = train_part(rung.make(device, hidden), steps).losses
    assert len(losses) == steps
    return losses


@pytest.fixture
def few_images(monkeypatch, mnist):
    """Every pipeline of the ladder is ten batches that are there at once. Lists the pipelines asked for."""
    few, asked = (mnist[0][:1280], mnist[1][:1280]), []

    def make_batches(kind, device, **loading):
        asked.append((kind, loading))
        return DeviceBatches(*few, device=device)

    monkeypatch.setattr(ladder, "make_batches", make_batches)
    return asked


# Every rung is the same training


@pytest.mark.parametrize("rung", EAGER, ids=lambda rung: rung.name)
def test_a_rung_gives_the_losses_of_the_plain_loop(rung):
    plain, found = losses_of(named(PLAIN), CPU, 20), losses_of(rung, CPU, 20)
    assert plain[-1] < plain[0] - 0.5  # it learns, so the comparison means something
    if rung.name == "bfloat16 autocast":  # which is another precision
        assert 1e-4 < max(abs(a - b) for a, b in zip(found, plain, strict=True)) <= rung.tolerance
    else:
        assert_same_losses(found, plain)


@pytest.mark.skipif(bool(named(COMPILED).missing(CPU)), reason=str(named(COMPILED).missing(CPU)))
def test_the_compiled_step_gives_the_losses_of_the_plain_loop(few_images):  # the epoch: see test_compiled_epoch.py
    assert_same_losses(losses_of(named(COMPILED), CPU, 3), losses_of(named(PLAIN), CPU, 3))


def test_a_rung_trains_its_own_model_and_two_trainings_share_nothing(few_images):
    for rung in EAGER:
        losses = []
        for _ in range(2):
            training = rung.make(CPU, 16)
            before = [p.detach().clone() for p in training.model.parameters()]
            assert [len(p) for p in before] == [16, 16, 10, 10], rung.name
            losses.append(train_part(training, 3).losses)
            assert not any(map(torch.equal, training.model.parameters(), before)), rung.name
        assert losses[0] == losses[1], rung.name


# What a rung changes


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
    assert [name for name, count in counts.items() if count == 10] == [name for name in NAMES[:4]]
    assert set(counts.values()) == {0, 10}
    assert fused == {name: name in WIDE for name in fused} and len(fused) > 5
    few_images.clear()
    for name in NAMES[:5]:
        named(name).make(CPU, 16)
    kinds = ("dataloader", {}), ("dataloader", {"workers": 2}), ("memory", {}), ("device", {}), ("device", {})
    assert few_images == [*kinds]


# The rungs as a list


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
    """A compiler, Triton and oneDNN."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(ladder.sys, "platform", "linux")
    monkeypatch.setattr(ladder.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(ladder, "triton_missing", lambda: None)
    monkeypatch.setattr(ladder, "onednn_missing", lambda: None)
    monkeypatch.setattr(ladder, "webgpu_missing", lambda: None)


NVIDIA_ONLY = {"CUDA graph of a step", "CUDA graph of an epoch", *OWN}
CPU_ONLY = {"backward written out", "written out, oneDNN", EPOCH, *WEBGPU}


def test_each_kind_of_device_lacks_what_was_made_for_the_other(everything, monkeypatch):
    assert missing(CPU).keys() == NVIDIA_ONLY and missing(CUDA).keys() == CPU_ONLY
    assert missing(MPS).keys() == NVIDIA_ONLY | CPU_ONLY


@pytest.mark.parametrize(
    ("name", "lost", "on_a_cpu", "on_a_gpu"),
    [
        ("triton_missing", "Triton is not installed", set(), {COMPILED, *OWN}),
        ("onednn_missing", "there is no oneDNN", {"written out, oneDNN"}, set()),
        ("webgpu_missing", "there is no driver", set(WEBGPU), set()),
    ],
)
def test_what_a_rung_is_written_with_may_be_missing(everything, monkeypatch, name, lost, on_a_cpu, on_a_gpu):
    monkeypatch.setattr(ladder, name, lambda: lost)
    assert missing(CPU).keys() == NVIDIA_ONLY | on_a_cpu and missing(CUDA).keys() == CPU_ONLY | on_a_gpu
    assert [why for device in (CPU, CUDA) for why in missing(device).values()].count(lost) == len(on_a_cpu | on_a_gpu)


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


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_rung_gives_the_losses_of_the_plain_loop_on_the_gpu(gpu, name):
    rung = named(name)
    if reason := rung.missing(gpu):
        pytest.skip(reason)
    plain = losses_of(named(PLAIN), gpu, 20)
    assert_same_losses(plain, losses_of(named(PLAIN), CPU, 20))
    found = losses_of(rung, gpu, 20)
    if name in WIDE[1:]:  # which have another precision from the first step
        assert max(abs(a - b) for a, b in zip(found, plain, strict=True)) <= rung.tolerance
    else:
        assert_same_losses(found, plain, rung.tolerance)
