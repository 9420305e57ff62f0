"""Real processes, started by torchrun as a user would start them."""

import importlib
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from agreement import FLIP, assert_same_losses
from epoch_in_float64 import CASES, losses_of

from mnist_gpu import device as device_module
from mnist_gpu.__main__ import main
from mnist_gpu.chapters.chapter_11 import torchrun
from mnist_gpu.faster import distributed as module
from mnist_gpu.faster.distributed import make_distributed_step, pick_local_device
from mnist_gpu.measuring.commands import run_command
from mnist_gpu.measuring.operations import Operations
from mnist_gpu.model import make_model
from mnist_gpu.run import run_training

TRAIN = ["-m", "mnist_gpu", "train", "--device", "cpu"]


def trained(command, path):
    """The run's epochs, with the losses of every batch, which it writes to `path`, and what it printed."""
    said = run_command([*command, "--json", path], timeout=240)
    return json.loads(path.read_text(encoding="utf-8"))["epochs"], said


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_rank(rank, processes, port, *options):
    """One process as torchrun would start it, and what it said."""
    place = {"RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    place = os.environ | {name: str(value) for name, value in place.items()}
    return subprocess.run([sys.executable, *options], env=place, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def in_float64(tmp_path_factory):
    """The losses of some trainings in float64 by one process, by two and by four: see epoch_in_float64.py."""
    folder = tmp_path_factory.mktemp("float64")
    importlib.import_module("torch._dynamo")  # which an optimizer imports: once, before the processes are forked
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # it has threads; none of them is needed
        return {n: losses_of(folder / f"{n}.json", n, free_port()) for n in (1, 2, 4)}


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_two_and_four_processes_have_the_losses_of_one(in_float64, case, processes):
    many, one = in_float64[processes][case], in_float64[1][case]
    assert len(many) == len(one) == math.ceil(CASES[case].images / CASES[case].batch_size)
    assert many == pytest.approx(one, abs=1e-9)
    assert min(one) < one[0] - 0.1  # it learns, so the comparison means something


def test_the_command_under_torchrun_has_the_losses_of_one_process_and_rank_0_alone_prints(tmp_path):
    options = [*TRAIN, "--epochs", "1", "--hidden", "32", "--batch-size", "256", "--lr", "0.02"]
    (one,), _ = trained([sys.executable, *options], tmp_path / "1.json")
    (many,), said = trained(torchrun(2, *options), tmp_path / "2.json")
    assert_same_losses(many["losses"], one["losses"])
    assert abs(many["test_loss"] - one["test_loss"]) < FLIP and many["images"] == one["images"] == 60_000
    assert said.count("Finished Training") == 1 and "2 processes share every batch of 256" in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads: none of them is needed
def test_a_training_that_is_killed_at_any_moment_goes_on_to_the_very_same_weights(tmp_path):
    def quietly(**options):  # in a forked process, which need not import PyTorch anew
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        torch.set_num_threads(1)
        os._exit(run_training(device="cpu", hidden=16, batch_size=512, epochs=12, **options).status)

    def ended(timeout=None, **options):
        """The exit code; of a process that is killed after `timeout` seconds, the signal's."""
        process = multiprocessing.get_context("fork").Process(target=quietly, kwargs=options)
        process.start()
        process.join(timeout)
        process.kill()
        process.join()
        return process.exitcode

    begin = time.monotonic()
    assert ended(save=tmp_path / "whole.pt") == 0
    seconds, chance = time.monotonic() - begin, random.Random(0)
    again = {name: tmp_path / "killed.pt" for name in ("save", "resume")}
    codes = [ended(chance.uniform(0, 0.3) * seconds, **again) for _ in range(10)]
    assert -signal.SIGKILL in codes[:3] and {*codes} <= {0, -signal.SIGKILL} and ended(**again) == 0
    whole, killed = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "killed"))
    assert all(torch.equal(killed["model"][name], weights) for name, weights in whole["model"].items())
    assert [e["number"] for e in killed["history"]] == list(range(1, 13))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_meets_nobody_says_where_within_the_timeout(rank):
    """Rank 0 waits for a second one, rank 1 finds nobody who listens."""
    port, start = free_port(), time.monotonic()
    answer = run_rank(rank, 2, port, *TRAIN, "--timeout", "3")
    assert answer.returncode == 2
    assert f"rank {rank} of 2 could not meet the others at 127.0.0.1:{port} within 3 s" in answer.stderr
    assert "Traceback" not in answer.stderr and time.monotonic() - start < 60


LEAVE = """
import contextlib, sys, torch
from pathlib import Path
from mnist_gpu.faster.distributed import join, make_distributed_step, DistributedDataParallel

def threads():
    print(*sorted({path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}))

def work():
    model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)))
    make_distributed_step(model, torch.optim.SGD(model.parameters()))(torch.zeros(2, 1, 28, 28), torch.zeros(2).long())
    threads()
    if "fail" in sys.argv:
        raise ValueError("it went wrong")

with contextlib.suppress(ValueError), join("cpu"):
    work()
threads()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the threads in /proc")
@pytest.mark.parametrize("how", ["work", "fail"])
def test_leaving_the_group_ends_its_threads(how):
    """One that outlives the group may still hold a tensor when Python ends, and then kills the process."""
    answer = run_rank(0, 1, free_port(), "-c", LEAVE, how)
    assert answer.returncode == 0, answer.stderr
    within, after = answer.stdout.splitlines()
    assert "gloo" in within and "gloo" not in after


def test_a_checkpoint_of_another_training_is_refused(tmp_path, capsys):
    path = tmp_path / "a.pt"
    quick = ["train", "--device", "cpu", "--hidden", "4", "--batch-size", "4096", "--epochs", "1", "--save", str(path)]

    def refused(*options):
        before = path.read_bytes()
        assert main([*map(str, [*quick, *options])]) == 2 and path.read_bytes() == before
        return capsys.readouterr().err

    assert main(quick) == 0
    said = refused("--resume", path, "--lr", "0.02", "--hidden", "8")
    assert "lr is 0.01, not 0.02" in said and "hidden is 4, not 8" in said
    assert "none.pt" in refused("--resume", tmp_path / "none.pt")
    path.write_bytes(path.read_bytes()[:500])
    assert "cannot be read as a checkpoint" in refused("--resume", path)


def test_two_machines_have_the_losses_of_one(tmp_path):
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    options = ["--device", "cpu", "--epochs", "1", "--timeout", "60"]
    command = [Path(__file__).with_name("two_machines.sh"), sys.executable, tmp_path, *options]
    answer = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=240)
    if answer.returncode == 77:
        pytest.skip(f"this system does not allow network namespaces: {answer.stderr.strip()[:200]}")
    assert answer.returncode == 0, answer.stderr
    (two,) = json.loads((tmp_path / "two.json").read_text(encoding="utf-8"))["epochs"]
    (one,), _ = trained([sys.executable, "-m", "mnist_gpu", "train", *options], tmp_path / "one.json")
    assert_same_losses(two["losses"], one["losses"])


# The device of a rank, with GPUs that are not there


@pytest.fixture
def two_gpus(monkeypatch):
    """Two CUDA devices on which kernels run, this rank the second of its machine; lists what is done with them."""
    done = []
    found = torch.device("cuda")
    for where in (module, device_module):
        monkeypatch.setattr(where, "accelerator", lambda: found)
    monkeypatch.setattr(device_module, "available_devices", lambda: ["cpu", "cuda:0", "cuda:1"])
    monkeypatch.setattr(device_module, "kernel_error", lambda device: done.append(("kernel", str(device))))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(("set", device)))
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: done.append(("set", index)))
    monkeypatch.setenv("LOCAL_RANK", "1")
    return done


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_rank_takes_its_own_gpu_before_it_runs_a_kernel(two_gpus, name):
    """Else every rank would open a context, hundreds of MB, on GPU 0."""
    assert pick_local_device(name) == torch.device("cuda:1")
    assert two_gpus == [("set", 1), ("kernel", "cuda")]


def test_a_rank_may_be_told_its_device_and_takes_the_cpu_if_its_gpu_runs_no_kernel(two_gpus, monkeypatch, capsys):
    assert pick_local_device("cpu") == torch.device("cpu") and pick_local_device("cuda:0") == torch.device("cuda:0")
    assert ("set", 1) not in two_gpus
    monkeypatch.setattr(device_module, "kernel_error", lambda device: "no kernel image")
    assert pick_local_device("auto") == torch.device("cpu") and "CPU" in capsys.readouterr().out


def test_a_rank_without_a_gpu_or_a_backend_is_told_what_to_do(two_gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match=r"process 3 .* 2 GPUs: .*--device cpu"):
        pick_local_device("auto")
    assert two_gpus == []
    for where in (module, device_module):
        monkeypatch.setattr(where, "accelerator", lambda: torch.device("mps"))
    with pytest.raises(ValueError, match=r"mps.*--device cpu"):
        pick_local_device("auto")


def test_a_step_copies_nothing_from_the_host(monkeypatch):
    """On a GPU such a copy would wait for the device; lift_fresh is how a tensor made of Python's numbers begins."""
    monkeypatch.setattr(module.dist, "all_reduce", lambda *a, **k: SimpleNamespace(wait=lambda: None))
    monkeypatch.setattr(module.dist, "get_world_size", lambda: 1)
    model = make_model(4)
    step = make_distributed_step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with Operations() as operations:
        step(torch.zeros(3, 1, 28, 28), torch.zeros(3, dtype=torch.int64))
    done = {operation.name for operation in operations.seen}
    assert "stack" in done and not done & {"lift_fresh", "_to_copy", "_local_scalar_dense"}
