import os
import subprocess
import sys
import tempfile

import pytest
import torch
from agreement import assert_same_losses
from torch.torch_version import TorchVersion

from mnist_gpu.data import DataLoaderBatches, DeviceBatches, MemoryBatches
from mnist_gpu.faster import ladder
from mnist_gpu.faster.ladder import PLAIN, RUNGS, TEXTBOOK, WIDE, Rung, Training, rungs, waiting
from mnist_gpu.measuring.workloads import train_part

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
NAMES = [rung.name for rung in RUNGS]
COMPILED = ["compiled model", "compiled step"]
EPOCH = "compiled epoch"  # on a CPU alone
REDUCED = "compiled step, reduce-overhead"  # on an NVIDIA GPU alone
OWN = ["kernels of our own", "kernels of our own, as a CUDA graph"]  # there, too


def named(name):
    (rung,) = rungs([name])
    return rung


def losses_of(rung, device, steps, hidden=128):
    losses = train_part(rung.make(device, hidden), steps).losses
    assert len(losses) == steps
    return losses


def largest_difference(rung, plain, device, hidden=128):
    found = losses_of(rung, device, len(plain), hidden)
    return max(abs(a - b) for a, b in zip(found, plain, strict=True))


@pytest.fixture
def few_images(monkeypatch, mnist):
    """Every pipeline of the ladder is ten batches that are there at once."""
    few = mnist[0][:1280], mnist[1][:1280]
    monkeypatch.setattr(ladder, "make_batches", lambda kind, device, **loading: DeviceBatches(*few, device=device))


# Every rung is the same training


@pytest.mark.parametrize("name", [name for name in NAMES if name not in [*COMPILED, EPOCH]])
def test_a_rung_gives_the_losses_of_the_plain_loop(name):
    rung = named(name)
    if reason := rung.missing(CPU):
        pytest.skip(reason)
    plain = losses_of(named(PLAIN), CPU, 20)
    assert plain[-1] < plain[0] - 0.5  # it learns, so the comparison means something
    difference = largest_difference(rung, plain, CPU)
    assert difference <= rung.tolerance
    if name == "bfloat16 autocast":
        assert difference > 1e-4  # it is another precision
    else:
        assert_same_losses(losses_of(rung, CPU, 20), plain)


@pytest.mark.skipif(bool(named(COMPILED[0]).missing(CPU)), reason=str(named(COMPILED[0]).missing(CPU)))
def test_compiled_rungs_give_the_losses_of_the_plain_loop(few_images):
    plain = losses_of(named(PLAIN), CPU, 3)
    for name in COMPILED:  # the compiled epoch: see test_compiled_epoch.py, and chapter 07
        assert_same_losses(losses_of(named(name), CPU, 3), plain)


def test_a_rung_trains_its_own_model(few_images):
    for rung in RUNGS:
        if rung.missing(CPU) or rung.name in [*COMPILED, EPOCH]:
            continue
        training = rung.make(CPU, 16)
        before = [p.detach().clone() for p in training.model.parameters()]
        assert [len(p) for p in before] == [16, 16, 10, 10], rung.name
        train_part(training, 2)
        for now, then in zip(training.model.parameters(), before, strict=True):
            assert not torch.equal(now, then), rung.name


def test_two_trainings_of_a_rung_share_nothing(few_images):
    for rung in RUNGS:
        if rung.missing(CPU) or rung.name in [*COMPILED, EPOCH]:
            continue
        first, second = losses_of(rung, CPU, 3, 16), losses_of(rung, CPU, 3, 16)
        assert first == second, rung.name


# What a rung changes


@pytest.mark.parametrize(
    ("name", "kind", "workers"),
    [
        ("textbook", DataLoaderBatches, 0),
        ("two workers", DataLoaderBatches, 2),
        ("pinned memory", DataLoaderBatches, 2),
        ("tensors in memory", MemoryBatches, None),
        ("uint8 on the device", DeviceBatches, None),
        ("no wait per step", DeviceBatches, None),
        ("backward written out", DeviceBatches, None),
    ],
)
def test_the_lower_rungs_change_the_pipeline(name, kind, workers):
    batches = named(name).make(CPU, 16).batches
    assert type(batches) is kind and len(batches) == 469
    if workers is not None:
        assert batches.loader.num_workers == workers


def test_two_rungs_pin_their_memory(monkeypatch):
    asked = {}
    for name in NAMES[:6]:
        monkeypatch.setattr(
            ladder, "make_batches", lambda kind, device, name=name, **loading: asked.update({name: loading})
        )
        named(name).make(CPU, 16)
    assert [name for name, loading in asked.items() if loading.get("pin_memory")] == [
        "pinned memory",
        "prefetch on a side stream",
    ]


def count_waits(monkeypatch):
    waits, item = [], torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda self: waits.append(1) or item(self))
    return waits


def test_the_lower_rungs_wait_for_every_loss(few_images, monkeypatch):
    waits, counts = count_waits(monkeypatch), {}
    for rung in RUNGS:
        if rung.missing(CPU) or rung.name in [*COMPILED, EPOCH]:
            continue
        _, step, batches = rung.make(CPU, 16)
        waits.clear()
        for batch in batches:
            step(*batch)
        counts[rung.name] = len(waits)
    assert [name for name, count in counts.items() if count] == [name for name in NAMES[:6] if name in counts]
    assert set(counts.values()) == {0, 10}


def test_waiting_reads_the_loss_once_a_step_and_returns_it(monkeypatch):
    waits, losses = count_waits(monkeypatch), [torch.tensor(1.5), torch.tensor(2.5)]
    step = waiting(lambda images, labels: losses[images + labels])
    assert step(0, 0) is losses[0] and len(waits) == 1
    assert step(0, 1) is losses[1] and len(waits) == 2


@pytest.mark.parametrize(
    ("name", "fused"), [("textbook", None), (PLAIN, None), ("fused optimizer", True), ("bfloat16 autocast", True)]
)
def test_the_optimizer_is_fused_from_its_rung_on(few_images, monkeypatch, name, fused):
    made, sgd = [], torch.optim.SGD
    monkeypatch.setattr(torch.optim, "SGD", lambda *args, **options: made.append(sgd(*args, **options)) or made[-1])
    named(name).make(CPU, 16)
    (group,) = made[0].param_groups
    assert len(made) == 1 and (group["lr"], group["momentum"], group["fused"]) == (0.01, 0.9, fused)


# The rungs as a list


def test_a_rung_comes_after_the_one_that_it_changes():
    assert len(set(NAMES)) == len(NAMES) and NAMES[0] == TEXTBOOK and RUNGS[0].base is None
    for i, rung in enumerate(RUNGS[1:], start=1):
        assert rung.base in NAMES[:i], rung.name
    assert {PLAIN, *WIDE} <= set(NAMES)


def test_rungs_come_in_the_order_of_the_ladder():
    assert rungs() == list(RUNGS)
    assert [r.name for r in rungs(["TF32", PLAIN, TEXTBOOK])] == [TEXTBOOK, PLAIN, "TF32"]
    assert [r.name for r in rungs(iter([PLAIN, PLAIN]))] == [PLAIN] and rungs([]) == []


def test_an_unknown_rung_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"no rung is called moon, sky; there are: textbook, two workers, .*oneDNN"):
        rungs([TEXTBOOK, "sky", "moon"])


def test_float32_rungs_may_differ_by_002_nats_and_bfloat16_by_005():
    assert {r.name: r.tolerance for r in RUNGS if r.tolerance != 0.02} == {"bfloat16 autocast": 0.05}
    assert Rung("any", None, None).missing(CPU) is None


# What is missing where


def missing(device):
    return {rung.name: reason for rung in RUNGS if (reason := rung.missing(device))}


@pytest.fixture
def everything(monkeypatch):
    """A compiler, Triton, oneDNN, an H200, and names without a space."""
    for name in ("CXX", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOGNAME", "reader")
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.setattr(ladder.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(ladder, "find_spec", lambda name: object())
    monkeypatch.setattr(ladder, "onednn_missing", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


NVIDIA_ONLY = dict.fromkeys([REDUCED, "CUDA graph of a step", "CUDA graph of an epoch", *OWN], "needs an NVIDIA GPU")
NVIDIA_ONLY |= {"prefetch on a side stream": "needs a GPU with memory and streams of its own"}
CPU_ONLY = dict.fromkeys(["backward written out", "written out, oneDNN", EPOCH], "is written for the CPU")
TF32 = {"TF32": "needs an NVIDIA GPU of compute capability 8.0 or higher"}


def test_each_kind_of_device_lacks_what_was_made_for_the_other(everything):
    assert missing(CPU) == NVIDIA_ONLY | TF32
    assert missing(CUDA) == CPU_ONLY
    assert missing(MPS) == NVIDIA_ONLY | TF32 | CPU_ONLY


@pytest.mark.parametrize(("capability", "there"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_tf32_needs_an_ampere_gpu(everything, monkeypatch, capability, there):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert missing(CUDA) == CPU_ONLY | ({} if there else TF32)


@pytest.mark.parametrize(
    ("platform", "cxx", "name"),
    [("linux", None, "g++"), ("darwin", None, "clang++"), ("win32", None, "cl"), ("linux", "icpx", "icpx")],
)
def test_compiling_for_a_cpu_needs_a_compiler(everything, monkeypatch, platform, cxx, name):
    monkeypatch.setattr(ladder.sys, "platform", platform)
    if cxx:
        monkeypatch.setenv("CXX", cxx)
    asked = []
    monkeypatch.setattr(ladder.shutil, "which", asked.append)
    reason = f"torch.compile needs a C++ compiler ({name}) on a CPU"
    assert missing(CPU) == NVIDIA_ONLY | TF32 | dict.fromkeys([*COMPILED, EPOCH], reason)
    assert set(asked) == {name}
    monkeypatch.setattr(ladder.shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    assert not set(COMPILED) & set(missing(CUDA))  # a GPU does not need it


@pytest.mark.parametrize("name", ["First Last", "O'Brien"])
@pytest.mark.parametrize("variable", ["TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "LOGNAME"])
def test_a_space_or_quote_in_a_name_that_the_compiler_gets_is_named_with_the_remedy(
    everything, monkeypatch, tmp_path, variable, name
):
    monkeypatch.setenv(variable, name if variable == "LOGNAME" else str(tmp_path / name))
    if variable == "TMPDIR":
        (tmp_path / name).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", None)  # it is looked for once
    lacking = missing(CPU)
    for rung in (*COMPILED, EPOCH):
        assert f"set {variable} " in lacking[rung] and name[-4:] in lacking[rung]
    assert not set(COMPILED) & set(missing(CUDA))


@pytest.mark.parametrize(("version", "platform", "torn"), [
    ("2.13.1+cpu", "linux", True), ("2.11.0", "darwin", True), ("2.14.0", "linux", False), ("2.13.0", "win32", False),
])  # fmt: skip
def test_a_space_in_the_path_of_pytorch_itself_breaks_older_ones(everything, monkeypatch, version, platform, torn):
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    monkeypatch.setattr(torch, "__file__", "/home/First Last/torch/__init__.py")
    monkeypatch.setattr(ladder.sys, "platform", platform)
    lacking = missing(CPU)
    for rung in (*COMPILED, EPOCH):
        assert (rung in lacking) is torn and ("2.14" in lacking.get(rung, "2.14"))


COMPILE = """
import torch
from mnist_gpu.measuring.climb import Climb
Climb(torch.device("cpu"), steps=1).show("compiled model")
"""


@pytest.mark.parametrize("folder", ["First Last", "張偉&Co($)"])
def test_what_is_compiled_in_a_folder_with_another_name_is_compiled_or_the_folder_is_named(tmp_path, folder):
    if reason := named(COMPILED[0]).missing(CPU):
        pytest.skip(reason)
    (tmp_path / folder).mkdir()
    own = {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"} | {"TMPDIR": str(tmp_path / folder)}
    own |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}
    said = subprocess.check_output([sys.executable, "-c", COMPILE], env=own, encoding="utf-8", timeout=240)
    if " " in folder and "set TMPDIR" in said:
        assert str(tmp_path / folder) in said
    else:
        assert "first 1 steps in" in said


def test_compiling_for_a_gpu_needs_triton(everything, monkeypatch):
    monkeypatch.setattr(ladder, "find_spec", lambda name: None if name == "triton" else object())
    lacking = dict.fromkeys([*COMPILED, REDUCED], "torch.compile needs Triton on a GPU")
    assert missing(CUDA) == CPU_ONLY | lacking | dict.fromkeys(OWN, "a kernel of our own needs Triton on a GPU")
    assert not {*COMPILED, EPOCH} & set(missing(CPU)) and not set(COMPILED) & set(missing(MPS))


@pytest.mark.parametrize(("cc", "names"), [(None, "gcc or clang"), ("icx", "icx")])
def test_triton_needs_a_c_compiler(everything, monkeypatch, cc, names):
    monkeypatch.setattr(ladder.sys, "platform", "linux")
    monkeypatch.delenv("CC", raising=False)
    if cc:
        monkeypatch.setenv("CC", cc)
    monkeypatch.setattr(ladder.shutil, "which", lambda name: None)
    reason = f"needs a C compiler ({names}) for Triton on a GPU"
    lacking = dict.fromkeys([*COMPILED, REDUCED], f"torch.compile {reason}")
    assert missing(CUDA) == CPU_ONLY | lacking | dict.fromkeys(OWN, f"a kernel of our own {reason}")
    monkeypatch.setattr(ladder.shutil, "which", lambda name: "/bin/it" if name in (cc, "clang") else None)
    assert missing(CUDA) == CPU_ONLY


def test_importing_the_ladder_leaves_triton_alone():
    code = "import sys, mnist_gpu.faster.ladder, mnist_gpu.training; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_step_that_becomes_a_graph_hands_out_losses_of_its_own(monkeypatch):
    """A graph writes every loss into the same memory."""
    asked, memory = {}, torch.zeros(())

    def compiled_step(device, hidden, **options):
        asked.update(options)
        return Training(None, lambda images, labels: memory.add_(1), None)

    monkeypatch.setattr(ladder, "compiled_step", compiled_step)
    step = ladder.compiled_graph(CPU).step
    assert [loss.item() for loss in (step(None, None), step(None, None))] == [1.0, 2.0]
    assert asked == {"mode": "reduce-overhead"}


@pytest.mark.parametrize("before", ["none", "ieee", "tf32"])
def test_the_rung_of_tf32_leaves_the_setting_as_it_was_also_after_an_error(monkeypatch, before):
    matmul, seen = torch.backends.cuda.matmul, []
    monkeypatch.setattr(ladder, "plain", lambda *a, **k: Training(None, step, None))

    def step(images, labels):
        seen.append(matmul.fp32_precision)
        if labels is None:
            raise RuntimeError("it broke")
        return 1.0

    kept = matmul.fp32_precision
    try:
        matmul.fp32_precision = before
        rung = ladder.tf32(CUDA)
        assert rung.step(None, 1) == 1.0 and matmul.fp32_precision == before
        with pytest.raises(RuntimeError, match="it broke"):
            rung.step(None, None)
        assert matmul.fp32_precision == before and seen == ["tf32", "tf32"]
    finally:
        matmul.fp32_precision = kept


def test_onednn_may_be_missing_on_a_cpu(everything, monkeypatch):
    monkeypatch.setattr(ladder, "onednn_missing", lambda: "there is none")
    assert missing(CPU) == NVIDIA_ONLY | TF32 | {"written out, oneDNN": "there is none"}
    assert missing(CUDA) == CPU_ONLY


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_rung_gives_the_losses_of_the_plain_loop_on_the_gpu(gpu, name):
    rung = named(name)
    if reason := rung.missing(gpu):
        pytest.skip(reason)
    plain = losses_of(named(PLAIN), gpu, 20)
    assert_same_losses(plain, losses_of(named(PLAIN), CPU, 20))
    assert largest_difference(rung, plain, gpu) <= rung.tolerance
