import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from mnist_gpu import benchmark, checkpoint, doctor
from mnist_gpu import run as training_run
from mnist_gpu.__main__ import COMMANDS, main, parser
from mnist_gpu.data import DeviceBatches
from mnist_gpu.device import environment
from mnist_gpu.measuring import results
from mnist_gpu.model import make_model
from mnist_gpu.run import gpu_message, run_training
from mnist_gpu.training import evaluate

LOG_LINE = re.compile(r"^\[1, {2,3}\d{3}\] loss: \d\.\d{3}$", re.MULTILINE)


def run(*arguments, cwd):
    command = [sys.executable, "-W", "error", "-m", "mnist_gpu", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def few_images(monkeypatch, mnist):
    """The pipelines have 640 images, so that an epoch takes no time."""

    def few(kind, train, batch_size, seed, device, part=(0, 1)):
        return DeviceBatches(mnist[0][:640], mnist[1][:640], batch_size, seed, device)

    monkeypatch.setattr(training_run, "make_batches", few)


# train


def test_train_prints_the_textbooks_lines_and_writes_what_is_asked_for(tmp_path, mnist_test):
    done = run("train", "--epochs", "1", "--device", "cpu", "--json", "a.json", "--save", "a.pt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # so also no progress bar, since this is no terminal
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
    assert epoch["loss"] == pytest.approx(sum(epoch["losses"]) / 469)
    assert epoch["images_per_s"] == pytest.approx(60_000 / epoch["seconds"])
    assert epoch["test_accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert content["configuration"]["epochs"] == 1 and content["configuration"]["save"] == "a.pt"
    assert content["environment"]["device"] == "cpu" and content["environment"]["threads"] == 1

    model = make_model(seed=9)
    checkpoint.load(tmp_path / "a.pt", model)
    found = evaluate(model, DeviceBatches(*mnist_test, 1000, seed=None))
    assert found.accuracy == pytest.approx(epoch["test_accuracy"], abs=2e-4)
    assert found.loss == pytest.approx(epoch["test_loss"], rel=1e-4)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_train_shows_a_progress_bar_on_a_terminal(tmp_path):
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = [sys.executable, "-m", "mnist_gpu", "train", "--epochs", "1", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65_536):
            shown += part
    except OSError:
        pass  # on Linux the end of a terminal reads as an error
    finally:
        os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    assert "epoch 1:" in text and "/469" in text and "batch/s" in text
    # The log lines stand on lines of their own, not torn by the bar.
    assert len(re.findall(r"(?:^|[\r\n])(?:\x1b\[[A-Z])?\[1,   [1-4]00\] loss: \d\.\d{3}\r?\n", text)) == 4
    assert "Finished Training" in text


def test_the_batch_size_is_named_with_what_to_try_when_memory_runs_out(few_images, monkeypatch, capsys):
    def out_of_memory(model, optimizer):
        def step(images, labels):
            raise torch.OutOfMemoryError("CUDA out of memory")

        return step

    monkeypatch.setattr(training_run, "make_step", out_of_memory)
    assert main(["train", "--device", "cpu", "--batch-size", "64"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: CUDA out of memory") and "Batch size 64" in error and "smaller batch" in error


def test_memory_of_the_computer_that_runs_out_is_named_with_what_was_needed(few_images, monkeypatch, capsys):
    def allocate(model, optimizer):
        return lambda images, labels: torch.empty(2**60)  # as an operation on large tensors would

    monkeypatch.setattr(training_run, "make_step", allocate)
    assert main(["train", "--device", "cpu", "--batch-size", "64"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "4,611,686,018.4 GB" in error and "Batch size 64" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), KeyError("x")])
def test_an_error_of_the_program_itself_keeps_its_traceback(few_images, monkeypatch, error):
    def broken(model, optimizer):
        def step(images, labels):
            raise error

        return step

    monkeypatch.setattr(training_run, "make_step", broken)
    with pytest.raises(type(error)):
        main(["train", "--device", "cpu"])


def test_several_epochs_are_numbered_and_kept_in_order(few_images, tmp_path, capsys):
    assert main(["train", "--device", "cpu", "--epochs", "3", "--json", str(tmp_path / "a.json")]) == 0
    epochs = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["epochs"]
    assert [e["number"] for e in epochs] == [1, 2, 3]
    assert epochs[2]["loss"] < epochs[0]["loss"]
    assert "median of 3" in capsys.readouterr().out


def test_the_settings_reach_the_training(few_images, tmp_path, capsys):
    command = "train --epochs 1 --device cpu --hidden 16 --batch-size 100 --lr 0.5 --momentum 0 --seed 3 --threads 2"
    assert main([*command.split(), "--save", str(tmp_path / "a.pt")]) == 0
    model = make_model(16)
    optimizer = torch.optim.SGD(model.parameters(), lr=9, momentum=0.9)
    content = checkpoint.load(tmp_path / "a.pt", model, optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.5 and optimizer.param_groups[0]["momentum"] == 0
    configuration = content["configuration"]
    assert (configuration["hidden"], configuration["batch_size"], configuration["seed"]) == (16, 100, 3)
    assert torch.get_num_threads() == 2 and " 2 threads of " in capsys.readouterr().out


def test_a_loss_that_is_not_finite_ends_the_training_with_status_1_and_saves_no_weights(few_images, tmp_path, capsys):
    files = ["--json", str(tmp_path / "a.json"), "--save", str(tmp_path / "a.pt")]
    assert main(["train", "--device", "cpu", "--lr", "1e30", *files]) == 1
    said = capsys.readouterr()
    assert "nan" in said.err and "epoch 1" in said.err and "Finished Training" not in said.out
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["epochs"] == []
    assert not (tmp_path / "a.pt").exists()


def test_an_interrupt_keeps_the_finished_epochs_and_ends_with_status_130(few_images, tmp_path, monkeypatch, capsys):
    original, calls = training_run.train, []

    def train(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(training_run, "train", train)
    assert main(["train", "--device", "cpu", "--json", str(tmp_path / "a.json")]) == 130
    said = capsys.readouterr().out
    assert "interrupted in epoch 3; 2 finished" in said and "Finished Training" not in said
    assert [e["number"] for e in json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["epochs"]] == [1, 2]


def test_the_textbooks_two_messages():
    assert gpu_message(torch.device("cuda:0")) == gpu_message(torch.device("mps")) == "GPU is available!"
    assert gpu_message(torch.device("cpu")) == "GPU is not available, switch to CPU!"


def test_a_notebook_can_run_the_whole_training_without_a_parser(few_images, capsys):
    found = run_training(epochs=2, device="cpu")
    assert found.status == 0 and [e.number for e in found.history] == [1, 2] and len(found.tests) == 2
    assert f"Test loss {found.tests[-1].loss:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("command", [command[0] for command in COMMANDS])
def test_the_options_of_a_command_are_the_arguments_of_its_function_with_their_defaults(command):
    options = vars(parser(command).parse_args([command]))
    function = options.pop("run")
    assert options == {k: p.default for k, p in inspect.signature(function).parameters.items()}


# Bad arguments


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--epochs", "0"], "epochs is 0"),
        (["--epochs", "-3"], "epochs is -3"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--hidden", "0"], "hidden is 0"),
        (["--lr", "0"], "lr is 0.0"),
        (["--lr", "-1"], "lr is -1.0"),
        (["--lr", "nan"], "lr is nan"),
        (["--lr", "inf"], "lr is inf"),
        (["--momentum", "1"], "momentum is 1.0"),
        (["--momentum", "-0.1"], "momentum is -0.1"),
        (["--momentum", "nan"], "momentum is nan"),
        (["--threads", "0"], "threads is 0"),
        (["--threads", "1000000"], "threads is 1000000"),
        (["--device", "cpu", "--hidden", "1000000000"], "11,588.0 GB"),
        (["--device", "cpu", "--batch-size", "60000", "--hidden", "100000000"], "batches of 60000 images"),
        (["--device", "nonsense"], "'nonsense'"),
        (["--json", "nowhere/b.json"], "nowhere/b.json"),
        (["--save", "nowhere/b.pt"], "nowhere/b.pt"),
        (["--json", "."], "cannot write .: it is a folder"),
    ],
)
def test_a_bad_argument_of_train_is_named_before_anything_is_done(tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--save", "a.pt", "--json", "a.json", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and named in said.err and "Traceback" not in said.err
    assert said.out == "" and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["train", "--epochs", "two"], ["train", "--batches", "disk"], ["benchmark", "--only", "all"]],
)
def test_what_is_no_command_or_choice_is_refused_with_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m mnist_gpu" in capsys.readouterr().err


def test_missing_data_are_named_with_the_remedy(tmp_path, monkeypatch, capsys, no_network):
    monkeypatch.setenv("MNIST_GPU_DATA", str(tmp_path / "nowhere"))
    assert main(["train", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(tmp_path / "nowhere") in error and "MNIST_GPU_DATA" in error


def test_bad_arguments_end_the_process_with_status_2_and_no_traceback(tmp_path):
    done = run("train", "--lr", "-1", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: lr is -1.0") and done.stderr.count("\n") == 1


# doctor


def test_the_doctor_finds_a_cpu_healthy(tmp_path):
    done = run("doctor", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "Training works here, on cpu" in done.stdout and "[ERROR]" not in done.stdout


def test_the_doctor_gives_status_1_for_a_device_that_is_not_here(monkeypatch, capsys):
    assert main(["doctor", "--device", "cuda:77"]) == 1
    said = capsys.readouterr().out
    assert "[ERROR] device is 'cuda:77'" in said and "Training works" not in said


def test_the_doctor_gives_status_1_where_the_data_are_missing(tmp_path, monkeypatch, capsys, no_network):
    monkeypatch.setenv("MNIST_GPU_DATA", str(tmp_path))
    assert main(["doctor", "--device", "cpu"]) == 1
    said = capsys.readouterr().out
    assert "[ERROR] MNIST" in said and "data/README.md" in said


def test_the_doctor_gives_status_0_where_a_gpu_fails_and_the_cpu_works(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "EXAMINATIONS", [lambda: [doctor.note("a GPU that does not work", "mend it")]])
    assert main(["doctor", "--device", "cpu"]) == 0
    assert "[note]  a GPU that does not work\n        -> mend it" in capsys.readouterr().out


def test_the_doctors_json_stands_alone_on_standard_output(tmp_path):
    done = run("doctor", "--json", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    found = json.loads(done.stdout)
    assert found["works"] is True and found["environment"]["device"] == "cpu" and found["environment"]["host"]
    assert found["findings"][-1]["text"].startswith("Training works here, on cpu")
    assert not list(tmp_path.iterdir())


def test_the_doctors_json_has_errors_and_status_1(tmp_path, monkeypatch, capsys, no_network):
    monkeypatch.setenv("MNIST_GPU_DATA", str(tmp_path))
    assert main(["doctor", "--json", "--device", "cuda:77"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["works"] is False
    errors = [f for f in found["findings"] if f["level"] == "error"]
    assert len(errors) == 2 and "cuda:77" in errors[1]["text"] and all(f["remedy"] for f in errors)


def test_what_is_printed_on_the_way_to_the_doctors_json_goes_to_standard_error(monkeypatch, capsys):
    def fallen_back(device):
        print("said on the way")
        return torch.device("cpu")

    monkeypatch.setattr(doctor, "pick_device", fallen_back)
    assert main(["doctor", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["works"] is True and "on the way" in said.err


# benchmark


@pytest.fixture
def on_the_cpu(monkeypatch):
    """The benchmark takes the CPU for the machine's only device."""
    monkeypatch.setattr(benchmark, "pick_device", lambda: torch.device("cpu"))


def test_benchmark_records_the_section_asked_for(tmp_path, on_the_cpu, capsys):
    path = tmp_path / "this-machine.json"
    assert main(["benchmark", "--quick", "--only", "ensemble", "--record", str(path)]) == 0
    said = capsys.readouterr()
    found = results.read(path)
    assert {m.section for m in found.measurements} == {"ensemble"} and found.quick
    assert [m.name for m in found.measurements] == ["plain step"] + ["at once"] * 6
    assert set(found.environment) == set(environment("cpu"))
    assert str(path) in said.out and said.err == ""
    assert [p.name for p in tmp_path.iterdir()] == ["this-machine.json"]


def test_an_interrupt_is_no_traceback(monkeypatch, capsys):
    def interrupted(device="auto", json=False):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run", interrupted)
    assert main(["doctor"]) == 130 and capsys.readouterr().err == "interrupted\n"


def test_a_record_that_cannot_be_written_is_an_error_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "benchmark", lambda *a, **k: pytest.fail("it was measured"))
    for path in (tmp_path / "nowhere" / "a.json", tmp_path):
        assert main(["benchmark", "--record", str(path)]) == 2
        assert str(path) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_benchmark_shows_a_progress_bar_on_a_terminal_only(on_the_cpu, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def measured(device, *, quick, only, on, progress, keep):
        list(progress(range(3)))
        return results.Results(environment(device), [], "2026-01-31")

    monkeypatch.setattr(benchmark, "benchmark", measured)
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert main(["benchmark", "--only", "ensemble"]) == 0
        assert ("3/3" in stream.getvalue() or "0/3" in stream.getvalue()) is shown


def test_training_needs_no_network():
    isolated = ["unshare", "--map-root-user", "--net"]  # a network namespace with no interface up, not even loopback
    if not shutil.which("unshare") or subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("this system does not allow network namespaces")
    command = [*isolated, sys.executable, "-m", "mnist_gpu", "train", "--epochs", "1", "--batches", "dataloader"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Finished Training" in done.stdout


@pytest.mark.parametrize("option", ["--save", "--json"])
def test_a_folder_that_cannot_be_written_is_named_before_the_training(option, tmp_path, monkeypatch, capsys):
    """A training into somebody else's folder, or onto a file system mounted read-only, would lose its result."""
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    assert main(["train", option, str(tmp_path / "a")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and str(tmp_path / "a") in said.err and "loss" not in said.out
