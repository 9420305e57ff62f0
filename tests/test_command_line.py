"""Each command and its bad input. All of them run once in test_pages.py, too."""

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from mnist_gpu import benchmark, checkpoint
from mnist_gpu import run as training_run
from mnist_gpu.__main__ import COMMANDS, main, parser
from mnist_gpu.data import DeviceBatches
from mnist_gpu.model import make_model
from mnist_gpu.run import run_training
from mnist_gpu.training import evaluate

LOG_LINE = re.compile(r"^\[1, {2,3}\d{3}\] loss: \d\.\d{3}$", re.MULTILINE)


def run(*arguments, cwd):
    command = [sys.executable, "-W", "error", "-m", "mnist_gpu", *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


@pytest.fixture
def few_images(monkeypatch, mnist):
    """The pipelines have 640 images, so that an epoch takes no time."""

    def few(kind, train, batch_size, seed, device, part=(0, 1)):
        return DeviceBatches(mnist[0][:640], mnist[1][:640], batch_size, seed, device)

    monkeypatch.setattr(training_run, "make_batches", few)


@pytest.mark.parametrize("command", [command[0] for command in COMMANDS])
def test_the_options_of_a_command_are_the_arguments_of_its_function_with_their_defaults(command):
    options = vars(parser(command).parse_args([command]))
    function = options.pop("run")
    assert options == {k: p.default for k, p in inspect.signature(function).parameters.items()}


def test_train_prints_the_textbooks_lines_and_writes_what_is_asked_for(tmp_path, mnist_test):
    done = run("train", "--epochs", "1", "--device", "cpu", "--json", "a.json", "--save", "a.pt", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "GPU is not available, switch to CPU!" and lines[1].startswith("Device: cpu (")
    assert LOG_LINE.findall(done.stdout) == lines[2:6] and lines[6] == "Finished Training"
    accuracy = float(re.search(r"test accuracy (\d\d\.\d\d)%", done.stdout)[1]) / 100
    assert accuracy > 0.88
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.pt"]

    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    (epoch,) = content["epochs"]
    assert epoch["number"] == 1 and epoch["images"] == 60_000 and len(epoch["losses"]) == 469
    logged = zip((100, 200, 300, 400), epoch["logged"], strict=True)
    assert [f"[1, {i:5d}] loss: {x:.3f}" for i, x in logged] == lines[2:6]
    assert epoch["test_accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert content["configuration"]["save"] == "a.pt" and content["environment"]["threads"] == 1
    model = make_model(seed=9)
    model.load_state_dict(checkpoint.read(tmp_path / "a.pt")["model"])
    found = evaluate(model, DeviceBatches(*mnist_test, 1000, seed=None))
    assert found.accuracy == pytest.approx(epoch["test_accuracy"], abs=2e-4)
    assert found.loss == pytest.approx(epoch["test_loss"], rel=1e-4)


def test_the_settings_reach_the_training_and_a_notebook_can_run_it(few_images, tmp_path, capsys):
    settings = {"hidden": 16, "batch_size": 100, "lr": 0.5, "momentum": 0, "seed": 3, "threads": 2}
    found = run_training(epochs=3, device="cpu", save=tmp_path / "a.pt", **settings)
    assert found.status == 0 and [e.number for e in found.history] == [1, 2, 3] and len(found.tests) == 3
    assert f"Test loss {found.tests[-1].loss:.4f}" in capsys.readouterr().out
    content = checkpoint.read(tmp_path / "a.pt")
    (group,) = content["optimizer"]["param_groups"]
    assert (group["lr"], group["momentum"], len(content["model"]["hidden.bias"])) == (0.5, 0, 16)
    assert settings.items() <= content["configuration"].items() and torch.get_num_threads() == 2


def test_a_loss_that_is_not_finite_ends_the_training_with_status_1_and_saves_no_weights(few_images, tmp_path, capsys):
    files = ["--json", str(tmp_path / "a.json"), "--save", str(tmp_path / "a.pt")]
    assert main(["train", "--device", "cpu", "--lr", "1e30", *files]) == 1
    said = capsys.readouterr()
    assert "nan" in said.err and "epoch 1" in said.err and "Finished Training" not in said.out
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["epochs"] == []
    assert not (tmp_path / "a.pt").exists()


def test_an_interrupt_keeps_the_finished_epochs_and_ends_with_status_130(few_images, tmp_path, monkeypatch, capsys):
    original = training_run.train

    def train(*args, history):
        if len(history) == 2:
            raise KeyboardInterrupt
        return original(*args, history=history)

    monkeypatch.setattr(training_run, "train", train)
    assert main(["train", "--device", "cpu", "--json", str(tmp_path / "a.json")]) == 130
    said = capsys.readouterr().out
    assert "interrupted in epoch 3" in said and "Finished Training" not in said
    assert [e["number"] for e in json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["epochs"]] == [1, 2]
    monkeypatch.setattr(training_run, "set_threads", lambda threads: signal.raise_signal(signal.SIGINT))
    assert main(["train"]) == 130 and capsys.readouterr().err == "interrupted\n"  # where there is nothing to keep


def fails(error):
    def step(images, labels):
        raise error if isinstance(error, Exception) else error()

    return lambda model, optimizer: step


def test_memory_that_runs_out_is_named_with_what_to_try_and_another_error_keeps_its_traceback(
    few_images, monkeypatch, capsys
):
    on_a_gpu = torch.OutOfMemoryError("CUDA out of memory")
    here = lambda: torch.empty(2**60)  # noqa: E731 - as an operation on large tensors would
    for error, named in ((on_a_gpu, "CUDA out of memory"), (here, f"{2**62} bytes")):
        monkeypatch.setattr(training_run, "make_step", fails(error))
        assert main(["train", "--device", "cpu", "--batch-size", "64"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and all(part in said for part in (named, "Batch size 64", "smaller batch"))
    monkeypatch.setattr(training_run, "make_step", fails(RuntimeError("mat1 and mat2 cannot be multiplied")))
    with pytest.raises(RuntimeError, match="mat1"):
        main(["train", "--device", "cpu"])


def test_training_needs_no_network():
    isolated = ["unshare", "--map-root-user", "--net"]  # a network namespace with no interface up, not even loopback
    if not shutil.which("unshare") or subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("this system does not allow network namespaces")
    command = [*isolated, sys.executable, "-m", "mnist_gpu", "train", "--epochs", "1", "--batches", "dataloader"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Finished Training" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "value", "limit"),
    [
        (["--epochs", "0"], "epochs is 0", "at least 1"),
        (["--batch-size", "-3"], "batch_size is -3", "at least 1"),
        (["--lr", "nan"], "lr is nan", "greater than 0"),
        (["--momentum", "1"], "momentum is 1.0", "below 1"),
        (["--threads", "1000000"], "threads is 1000000", "CPUs"),
        (["--device", "cpu", "--hidden", "1000000000"], "1000000000", "GB"),
        (["--device", "nonsense"], "'nonsense'", "cpu"),
        (["--json", "nowhere/b.json"], "nowhere/b.json", "no folder"),
    ],
)
def test_a_bad_argument_of_train_is_named_before_anything_is_done(
    tmp_path, monkeypatch, capsys, arguments, value, limit
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--save", "a.pt", "--json", "a.json", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and value in said.err and limit in said.err
    assert "loss" not in said.out and not list(tmp_path.iterdir())


def test_what_is_no_command_or_choice_is_refused_with_status_2(capsys):
    for arguments in ("", "fly", "train --epochs two", "train --batches disk", "benchmark --only all"):
        with pytest.raises(SystemExit) as caught:
            main(arguments.split())
        assert caught.value.code == 2 and "usage: python -m mnist_gpu" in capsys.readouterr().err


def test_missing_data_are_named_with_the_remedy_by_train_and_doctor(tmp_path, monkeypatch, capsys, no_network):
    monkeypatch.setenv("MNIST_GPU_DATA", str(tmp_path / "nowhere"))
    assert main(["train", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(tmp_path / "nowhere") in error and "MNIST_GPU_DATA" in error
    assert main(["doctor", "--device", "cpu"]) == 1
    said = capsys.readouterr().out
    assert "[ERROR]" in said and str(tmp_path / "nowhere") in said and "Training works" not in said


def test_the_doctor_ends_with_status_1_for_a_device_that_is_not_here_and_says_what_to_do(capsys):
    assert main(["doctor", "--device", "cuda:77"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"\[ERROR\] .*cuda:77.*\n +-> \w", said) and "Training works" not in said


def test_a_file_that_cannot_be_written_is_an_error_before_anything_is_done(tmp_path, monkeypatch, capsys):
    """Into somebody else's folder, or onto a file system mounted read-only, a long run would lose its result."""
    monkeypatch.setattr(benchmark, "plan", lambda *a, **k: pytest.fail("it was measured"))
    for path in (tmp_path / "nowhere" / "a", tmp_path, tmp_path / "a"):
        if path == tmp_path / "a":
            monkeypatch.setattr(os, "access", lambda folder, mode: False)
        for command in (["benchmark", "--record"], ["train", "--save"]):
            assert main([*command, str(path)]) == 2
            assert str(path) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
