"""`python -m mnist_gpu train --device webgpu`: the same training as on the CPU, and checkpoints that go both ways."""

import json

import pytest
from guarded import any_adapter

from mnist_gpu.__main__ import main


def train(tmp_path, *options) -> list[dict]:
    """The epochs of a small training."""
    sizes = ["--hidden", "4", "--batch-size", "1000", "--json", str(tmp_path / "run.json")]
    assert main(["train", *sizes, *options]) == 0
    return json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["epochs"]


def test_a_training_goes_on_from_a_checkpoint_of_the_cpu_and_back(tmp_path, capsys):
    there, kept = f"webgpu:{any_adapter()}", ["--save", str(tmp_path / "it.pt"), "--resume", str(tmp_path / "it.pt")]
    expected = train(tmp_path, "--device", "cpu", "--epochs", "3")
    train(tmp_path, "--device", there, "--epochs", "1", *kept)
    said = capsys.readouterr().out
    assert any_adapter() in said and "GPU is available!" in said
    train(tmp_path, "--device", "cpu", "--epochs", "2", *kept)
    found = train(tmp_path, "--device", there, "--epochs", "3", *kept)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["losses"] == pytest.approx(theirs["losses"], abs=0.02)
        assert ours["test_accuracy"] == pytest.approx(theirs["test_accuracy"], abs=0.01)


def test_what_cannot_be_is_refused_with_what_there_is(capsys):
    assert main(["train", "--device", "webgpux"]) == 2 and "webgpux" in capsys.readouterr().err
    assert main(["train", "--device", "webgpu:GeForce 9999"]) == 2
    said = capsys.readouterr().err
    assert "GeForce 9999" in said and any_adapter() in said
    assert main(["train", "--device", f"webgpu:{any_adapter()}", "--batches", "dataloader"]) == 2
    assert "--batches device" in capsys.readouterr().err
