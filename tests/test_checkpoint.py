import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from agreement import losses_of

from mnist_gpu import checkpoint
from mnist_gpu.checkpoint import CheckpointError, read, save
from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step


def copy_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def unchanged(model, before):
    return all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.fixture
def trained(mnist):
    """A model with its optimizer, and 20 batches; one epoch done."""
    batches = DeviceBatches(mnist[0][:1280], mnist[1][:1280], batch_size=64)
    model = make_model(16)
    optimizer = sgd(model)
    losses_of(model, make_step(model, optimizer), batches)
    return model, optimizer, batches


@pytest.fixture
def path(tmp_path, trained):
    """A checkpoint of that, alone in its folder."""
    (tmp_path / "folder").mkdir()
    save(tmp_path / "folder" / "model.pt", trained[0], trained[1], epoch=1, configuration={"names": ["a"]})
    return tmp_path / "folder" / "model.pt"


def test_training_goes_on_as_if_it_had_not_been_interrupted(path, trained):
    model, optimizer, batches = trained
    other = make_model(16, seed=9)
    other_optimizer = sgd(other)
    content = read(path)
    other.load_state_dict(content["model"])
    other_optimizer.load_state_dict(content["optimizer"])
    assert content["epoch"] == 1 and content["configuration"] == {"names": ["a"]} and unchanged(other, copy_of(model))
    without_momentum = make_model(16)
    without_momentum.load_state_dict(content["model"])
    losses = []
    for m, o in ((model, optimizer), (other, other_optimizer), (without_momentum, sgd(without_momentum))):
        again = DeviceBatches(batches.images, batches.labels, batch_size=64, seed=1)
        losses.append(losses_of(m, make_step(m, o), again))
    assert losses[0] == losses[1] != losses[2]  # so the optimizer's state matters, and is restored
    assert unchanged(other, copy_of(model))


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.95, 0.999])
def test_a_truncated_file_is_an_error(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"model\.pt.*cut off"):
        read(path)


class RunsCode:
    ran = False

    def __reduce__(self):
        return setattr, (RunsCode, "ran", True)


FOREIGN = {
    "a text": lambda path: path.write_text("this is a text\nof two lines\n", encoding="utf-8"),
    "a text that unpickles oddly": lambda path: path.write_text("0123", encoding="utf-8"),
    "a zip file": lambda path: zipfile.ZipFile(path, "w").close(),
    "a pickle that runs code": lambda path: path.write_bytes(pickle.dumps(RunsCode())),
    "a torch file that runs code": lambda path: torch.save(RunsCode(), path),
    "another dictionary": lambda path: torch.save({"format": "something else", "model": {}}, path),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_an_error_and_runs_no_code(tmp_path, kind):
    FOREIGN[kind](tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match=r"foreign\.pt"):
        read(tmp_path / "foreign.pt")
    assert not RunsCode.ran


# The limit stands for a full disk: the system refuses to write on, in the middle of a file.
FULL = """
import resource, sys, torch
from mnist_gpu import checkpoint
from mnist_gpu.faster.ladder import sgd
from mnist_gpu.model import make_model

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(sys.argv[1], model := make_model(128), sgd(model))
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_that_is_full_is_named_and_the_old_file_stays(path):
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert f"File too large: cannot write {path}" in done.stdout
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("error", [OSError("no right to replace"), KeyboardInterrupt()])
@pytest.mark.parametrize(("module", "name"), [(checkpoint.torch, "save"), (os, "fsync"), (os, "replace")])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, monkeypatch, error, module, name):
    def fail(*arguments):
        raise error

    before, model = path.read_bytes(), make_model(16)
    monkeypatch.setattr(module, name, fail)
    with pytest.raises(type(error)):
        save(path, model, sgd(model))
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["model.pt"]


@pytest.mark.gpu
def test_a_checkpoint_moves_between_gpu_and_cpu(gpu, tmp_path):
    there, here = make_model(16, seed=1, device=gpu), make_model(16, seed=2)
    save(tmp_path / "model.pt", there, sgd(there))
    here.load_state_dict(read(tmp_path / "model.pt")["model"])
    assert all(torch.equal(a.cpu(), b) for a, b in zip(there.parameters(), here.parameters(), strict=True))
    assert next(here.parameters()).device.type == "cpu"
