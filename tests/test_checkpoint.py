import os
import pickle
import subprocess
import sys
import warnings
import zipfile

import pytest
import torch

from mnist_gpu import checkpoint
from mnist_gpu.checkpoint import CheckpointError, load, save
from mnist_gpu.checks import atomic_write
from mnist_gpu.data import DeviceBatches
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step, train


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def copy_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def unchanged(model, before):
    return all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.fixture
def trained(mnist):
    """A model of width 16 with its optimizer, and 20 batches; one epoch done."""
    batches = DeviceBatches(mnist[0][:1280], mnist[1][:1280], batch_size=64)
    model = make_model(16)
    optimizer = sgd(model)
    train(model, make_step(model, optimizer), batches, log=lambda *line: None)
    return model, optimizer, batches


@pytest.fixture
def path(tmp_path, trained):
    """A checkpoint of that, alone in its folder."""
    (tmp_path / "folder").mkdir()
    save(tmp_path / "folder" / "model.pt", trained[0], trained[1], epoch=1)
    return tmp_path / "folder" / "model.pt"


# The limit stands for a full disk: the system refuses to write on, in the middle of a file.
FULL = """
import resource, sys, torch
from mnist_gpu import checkpoint
from mnist_gpu.model import make_model

checkpoint.save(sys.argv[1], make_model(8))
before = open(sys.argv[1], "rb").read()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(sys.argv[1], make_model(128))
except OSError as error:
    print(error)
assert open(sys.argv[1], "rb").read() == before
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_that_is_full_is_named_and_the_old_file_stays(tmp_path):
    command = [sys.executable, "-c", FULL, str(tmp_path / "a.pt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        f"File too large: cannot write {tmp_path / 'a.pt'}. The file that was there before is unchanged." in done.stdout
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_a_loaded_model_predicts_the_same_and_the_extras_come_back(tmp_path, trained, mnist):
    model, optimizer, batches = trained
    save(tmp_path / "model.pt", model, optimizer, epoch=1, configuration={"lr": 0.01, "names": ["a"]})
    other = make_model(16, seed=9)
    content = load(tmp_path / "model.pt", other)
    assert content["epoch"] == 1 and content["configuration"] == {"lr": 0.01, "names": ["a"]}
    images, _ = next(iter(batches))
    assert torch.equal(other(images), model(images))


def test_training_goes_on_as_if_it_had_not_been_interrupted(path, trained):
    model, optimizer, batches = trained
    other = make_model(16, seed=9)
    other_optimizer = sgd(other)
    load(path, other, other_optimizer)
    images, labels = batches.images, batches.labels
    losses = []
    for m, o in ((model, optimizer), (other, other_optimizer)):
        again = DeviceBatches(images, labels, batch_size=64, seed=1)
        losses.append(train(m, make_step(m, o), again, log=lambda *line: None)[0].losses)
    assert losses[0] == losses[1]
    assert unchanged(other, copy_of(model))


def test_without_the_momentum_training_would_go_on_differently(path, trained):
    """So the test above does test that the optimizer's state is restored."""
    model, optimizer, batches = trained
    other = make_model(16, seed=9)
    load(path, other)
    batch = next(iter(batches))
    for m, o in ((model, optimizer), (other, sgd(other))):
        make_step(m, o)(*batch)
    assert not unchanged(other, copy_of(model))


@pytest.mark.parametrize("share", [0, 0.001, 0.02, 0.1, 0.3, 0.5, 0.8, 0.95, 0.999])
def test_a_truncated_file_is_an_error_and_changes_nothing(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    model = make_model(16)
    before = copy_of(model)
    with pytest.raises(CheckpointError, match=r"model\.pt cannot be read as a checkpoint; it may be cut off"):
        load(path, model)
    assert unchanged(model, before)


class RunsCode:
    ran = False

    def __reduce__(self):
        return setattr, (RunsCode, "ran", True)


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "Dear reader")


FOREIGN = {
    "a text": lambda path: path.write_text("this is a text\nof two lines\n", encoding="utf-8"),
    "a text that unpickles oddly": lambda path: path.write_text("0123", encoding="utf-8"),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "a zip file": write_zip,
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"format": "mnist_gpu checkpoint 1"}, protocol=4)),
    "a pickle that runs code": lambda path: path.write_bytes(pickle.dumps(RunsCode())),
    "a torch file that runs code": lambda path: torch.save(RunsCode(), path),
    "another dictionary": lambda path: torch.save({"format": "something else", "model": {}}, path),
    "bare weights": lambda path: torch.save(make_model(16).state_dict(), path),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_an_error_runs_no_code_and_changes_nothing(tmp_path, kind):
    path = tmp_path / "foreign.pt"
    FOREIGN[kind](path)
    model = make_model(16)
    before = copy_of(model)
    with pytest.raises(CheckpointError, match=r"foreign\.pt"):
        load(path, model)
    assert unchanged(model, before) and not RunsCode.ran


def test_any_first_byte_of_a_text_gives_the_same_kind_of_error(tmp_path):
    """torch.load takes the bytes for pickle's instructions, which fail in many ways."""
    path = tmp_path / "foreign.pt"
    with warnings.catch_warnings(action="error"):
        for first in range(256):
            path.write_bytes(bytes([first]) + b"his is a text\nof two lines\n")
            with pytest.raises(CheckpointError):
                load(path, make_model(1))


def test_weights_of_another_width_are_an_error_and_change_nothing(path):
    model = make_model(32)
    optimizer = sgd(model)
    before = copy_of(model)
    with pytest.raises(CheckpointError, match=r"of another model.*\[16, 784\].*\[32, 784\]"):
        load(path, model, optimizer)
    assert unchanged(model, before) and not optimizer.state


def test_a_checkpoint_without_an_optimizer_serves_predictions_only(tmp_path, trained):
    save(tmp_path / "model.pt", trained[0])
    model = make_model(16, seed=9)
    before = copy_of(model)
    with pytest.raises(CheckpointError, match="without an optimizer"):
        load(tmp_path / "model.pt", model, sgd(model))
    assert unchanged(model, before)
    load(tmp_path / "model.pt", model)
    assert unchanged(model, copy_of(trained[0]))


def test_an_optimizer_of_another_make_up_is_an_error_and_changes_nothing(path):
    model = make_model(16, seed=9)
    before = copy_of(model)
    groups = [{"params": layer.parameters()} for layer in (model.hidden, model.output)]
    with pytest.raises(CheckpointError, match="another optimizer"):
        load(path, model, torch.optim.SGD(groups, lr=0.01, momentum=0.9))
    assert unchanged(model, before)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        load(tmp_path / "nothing.pt", make_model(16))


def half_a_file(content, file):
    file.write(b"half a file")
    raise OSError("no space left on device")


def interrupted(content, file):
    file.write(b"half a file")
    raise KeyboardInterrupt


@pytest.mark.parametrize(("failure", "error"), [(half_a_file, OSError), (interrupted, KeyboardInterrupt)])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, trained, monkeypatch, failure, error):
    before = path.read_bytes()
    monkeypatch.setattr(checkpoint.torch, "save", failure)
    with pytest.raises(error):
        save(path, trained[0])
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["model.pt"]


def test_a_save_that_fails_at_the_very_end_leaves_the_old_file_and_nothing_else(path, trained, monkeypatch):
    def fail(source, target):
        raise OSError("no right to replace")

    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no right"):
        save(path, trained[0])
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["model.pt"]


def test_saving_into_a_folder_that_is_not_there_is_an_error(tmp_path, trained):
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "nowhere" / "model.pt", trained[0])
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.gpu
def test_a_checkpoint_moves_between_gpu_and_cpu(gpu, tmp_path):
    there, here = make_model(16, seed=1, device=gpu), make_model(16, seed=2)
    save(tmp_path / "model.pt", there)
    load(tmp_path / "model.pt", here)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(there.parameters(), here.parameters(), strict=True))
    assert next(here.parameters()).device.type == "cpu"


def test_a_file_system_that_is_read_only_is_named(tmp_path, monkeypatch):
    """There, even to remove a temporary file that was never made is an error, and not that there is none."""

    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system", "a temporary name")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    said = f"Read-only file system: cannot write {tmp_path / 'a'}. Nothing was written"
    with pytest.raises(OSError, match=said), atomic_write(tmp_path / "a"):
        pass
