"""The comparison with other libraries (benchmarks/peers): none of them has to be there."""

import importlib
import sys
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from mnist_gpu.data import make_batches
from mnist_gpu.faster.ladder import PLAIN, Rung, plain
from mnist_gpu.measuring import results
from mnist_gpu.measuring.workloads import train_part
from mnist_gpu.training import evaluate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks" / "peers"))
libraries, peers = (importlib.import_module(name) for name in ("libraries", "peers"))

# In place of a library that may not be there: it learns nothing, if it is held to one CPU and gets the right images.
NEURAL_NETWORK = """
import os
import numpy as np

class MLPClassifier:
    def __init__(self, width, **options):
        self.coefs_ = np.zeros((784, 128)), np.zeros((128, 10))  # so every digit is as likely: a loss of ln 10
        self.intercepts_ = np.zeros(128), np.zeros(10)

    def fit(self, images, labels):
        print("a library that talks")
        assert images.shape == (60000, 784) and (images.min(), images.max()) == (-1, 1) and len(labels) == 60000
        assert os.environ["OMP_NUM_THREADS"] == "1" and len(getattr(os, "sched_getaffinity", "{}".format)(0)) == 1
"""


def test_peers_train_the_courses_training_and_one_that_learns_something_else_is_skipped(tmp_path, monkeypatch, capfd):
    (tmp_path / "sklearn").mkdir()
    files = {"__init__": "", "exceptions": "ConvergenceWarning = UserWarning", "neural_network": NEURAL_NETWORK}
    for name, text in files.items():
        (tmp_path / "sklearn" / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    skipped, timed = peers.measure(["plain loop", "scikit-learn"], rounds=2)
    assert skipped.name == "scikit-learn" and "test loss is 2.303" in skipped.reason
    train_part(training := plain("cpu"))
    expected = evaluate(training.model, make_batches("device", train=False, batch_size=1000, seed=None))
    assert timed.proof["test_loss"] == pytest.approx(expected.loss, rel=0.02)  # see agreement.py
    (earlier,) = (m for r in results.recorded() for m in r.select("peers", "plain loop"))
    assert (timed.parameters, timed.per_call) == (earlier.parameters, earlier.per_call)
    assert timed.proof.keys() == earlier.proof.keys()
    assert len(timed.seconds) == 2 and timed.first_use_seconds > 0 and "talks" not in capfd.readouterr().out


def fake_peer(name, *rung, log, interrupt):
    """A peer that notes its calls. `interrupt`: the name and number of one."""

    def epoch():
        log.append(name)
        if (name, log.count(name)) == interrupt:
            raise KeyboardInterrupt

    answer = {"seconds": 7.0, "test_loss": 0.3, "test_accuracy": 0.9}
    return Mock(side_effect=epoch, first=lambda: answer, close=lambda: log.append(f"{name} closed"))


def test_peers_take_turns_and_an_interrupt_keeps_the_finished_rounds_in_the_record(tmp_path, monkeypatch):
    record, log, names = tmp_path / "it.json", [], list(libraries.PEERS)
    monkeypatch.setattr(peers, "fastest_rung", lambda: "compiled epoch")
    for interrupt in (None, ("skorch", 14)):
        monkeypatch.setattr(peers, "Peer", partial(fake_peer, log=log, interrupt=interrupt))
        peers.run(record)
    closed = [f"{name} closed" for name in names]
    assert log == names * 10 + closed + names * 3 + names[: names.index("skorch") + 1] + closed
    assert {m.name: len(m.seconds) for m in results.read(record).measurements} == dict.fromkeys(names, 10)


def test_the_fastest_rung_is_of_the_same_training(monkeypatch):
    def other(device):
        model, step, batches = plain(device)
        return model, lambda images, labels: step(images, labels) + 1, batches

    rungs = [Rung(PLAIN, plain, None), Rung("x", other, None), Rung("fast", plain, None)]
    monkeypatch.setattr(peers, "RUNGS", rungs)
    monkeypatch.setattr(peers, "alternate", lambda sides, rounds: {n: [len(n)] * rounds for n in sides})
    assert peers.fastest_rung() == "fast"
