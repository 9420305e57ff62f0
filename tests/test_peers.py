"""The comparison with other libraries (benchmarks/peers): none of them has to be there."""

import importlib
import math
import os
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from mnist_gpu.data import make_batches
from mnist_gpu.faster.ladder import Rung, plain, rungs
from mnist_gpu.measuring import results
from mnist_gpu.measuring.workloads import train_part
from mnist_gpu.training import evaluate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks" / "peers"))
libraries, peers = (importlib.import_module(name) for name in ("libraries", "peers"))


@pytest.mark.parametrize("name", [("plain loop",), ("fastest rung", "backward written out")])
def test_the_course_as_a_peer_is_the_course(name):
    training = rungs(name[1:])[0].make("cpu") if name[1:] else plain("cpu")
    train_part(training)
    expected = evaluate(training.model, make_batches("device", train=False, batch_size=1000, seed=None))
    with closing(peers.Peer(*name)) as peer:
        first = peer.first()
        assert set(first) == {"seconds", "test_loss", "test_accuracy"} and first["seconds"] > 0
        assert first["test_loss"] == pytest.approx(expected.loss, rel=0.02)  # see agreement.py
        assert peer() is None  # later epochs only train
        peer.process.kill()
        with pytest.raises(RuntimeError):
            peer()


# A library that is not there, in place of the one that may be.
NEURAL_NETWORK = """
import os, sys
import numpy as np
import torch

class OfALibrary(Exception):
    def __init__(self, one, two):
        super().__init__(one + two)

class MLPClassifier:
    def __init__(self, width, **options):
        self.epochs = 0

    def fit(self, images, labels):
        print("a library that talks")
        assert images.shape == (60000, 784) and images.dtype == np.float32 and labels.dtype == np.int64
        assert (images.min(), images.max()) == (-1, 1)
        self.epochs += 1
        if self.epochs == 2:
            cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
            raise OfALibrary(f"{os.environ['OMP_NUM_THREADS']} {torch.get_num_threads()} {cpus}", " µ")
        self.coefs_ = np.zeros((784, 128)), np.zeros((128, 10))  # so every digit is as likely: a loss of ln 10
        self.intercepts_ = np.zeros(128), np.zeros(10)
"""


def test_a_peer_is_held_to_one_cpu_says_its_error_and_is_ended(tmp_path, monkeypatch, capfd):
    folder = tmp_path / "sklearn"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "exceptions.py").write_text("class ConvergenceWarning(UserWarning): pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    missing = pytest.raises(RuntimeError, match=r"ModuleNotFoundError: No module named 'sklearn\.neural_network'")
    with closing(peers.Peer("scikit-learn")) as peer, missing:
        peer.first()
    (folder / "neural_network.py").write_text(NEURAL_NETWORK, encoding="utf-8")
    with closing(peers.Peer("scikit-learn")) as peer:
        first = peer.first()
        assert first["test_loss"] == pytest.approx(math.log(10), rel=1e-6)
        assert first["test_accuracy"] == pytest.approx(0.098)  # 980 of 10,000 test images are zeros
        with pytest.raises(RuntimeError, match=r"^OfALibrary: 1 1 1 µ$"):
            peer()
    assert not peer.process.is_running() and not os.path.exists(peer.compiled.name)
    assert os.environ["OMP_NUM_THREADS"] == "4" and "talks" not in capfd.readouterr().out


class FakePeer:
    """A peer with the test loss of its name in `losses`, or its error. `interrupt`: the name and number of a call."""

    def __init__(self, name, *rung, losses, log, interrupt=None):
        self.name, self.losses, self.log, self.interrupt = name, losses, log, interrupt

    def __call__(self):
        self.log.append(self.name)
        if (self.name, self.log.count(self.name)) == self.interrupt:
            raise KeyboardInterrupt

    def first(self):
        self()
        if isinstance(loss := self.losses.get(self.name, 0.3), Exception):
            raise loss
        return {"seconds": 7.0, "test_loss": loss, "test_accuracy": 0.9}

    def close(self):
        self.log.append(f"{self.name} closed")


@pytest.fixture
def fake(monkeypatch):
    """Replaces the peers' processes: `losses` to set, the calls in `log`."""
    found = SimpleNamespace(losses={}, log=[])
    monkeypatch.setattr(peers, "Peer", partial(FakePeer, **vars(found)))
    monkeypatch.setattr(peers, "fastest_rung", lambda: "backward written out")
    return found


def test_peers_take_turns_and_are_recorded_as_they_always_were(fake):
    names = ["plain loop", "fastest rung", "skorch"]
    measured = {m.name: m for m in peers.measure(names, rounds=3)}
    assert fake.log == names * 4 + [f"{name} closed" for name in names] and list(measured) == names
    (reference,) = (r for r in results.recorded() if r.select("peers"))
    assert [m.name for m in reference.select("peers")] == list(libraries.PEERS)
    for name, m in measured.items():
        (earlier,) = reference.select("peers", name)
        assert m.key == earlier.key and m.per_call == earlier.per_call and m.proof.keys() == earlier.proof.keys()
        assert len(m.seconds) == 3 and m.first_use_seconds == 7.0 and m.proof["test_loss"] == 0.3
    assert measured["fastest rung"].proof["rung"] == "backward written out"


def test_a_peer_that_fails_or_learns_something_else_is_skipped_with_its_reason(fake):
    fake.losses |= {"skorch": RuntimeError("broken"), "Keras on JAX": 0.346, "Lightning": 0.254, "fastai": float("nan")}
    fake.losses |= {"scikit-learn": 0.3 * 1.14, "Keras on torch": 0.3 * 0.86}  # as near as another order
    *skipped, _, one, two = peers.measure(["plain loop", *fake.losses], rounds=1)
    assert {one.name, two.name} == {"scikit-learn", "Keras on torch"}
    reasons = {s.name: s.reason for s in skipped}
    assert reasons.pop("skorch") == "failed: broken"
    assert reasons["Keras on JAX"] == "failed: another training: its test loss is 0.346, not about 0.300"
    assert list(reasons) == ["Keras on JAX", "Lightning", "fastai"] and "nan" in reasons["fastai"]
    assert sorted(c for c in fake.log if "closed" in c) == sorted(f"{n} closed" for n in ["plain loop", *fake.losses])


def test_an_interrupt_keeps_the_finished_rounds_in_the_record(fake, tmp_path, monkeypatch, capsys):
    record = tmp_path / "it.json"
    peers.run(record)
    monkeypatch.setattr(peers, "Peer", partial(peers.Peer, interrupt=("skorch", 14)))  # of 11 before, and 2 now
    peers.run(record)
    written = results.read(record)
    assert {m.name: len(m.seconds) for m in written.measurements} == dict.fromkeys(libraries.PEERS, 10)
    assert "interrupted" in capsys.readouterr().out
    written.environment["torch"] = "another"
    results.write(record, written)
    with pytest.raises(ValueError, match="torch"):
        peers.run(record)


def test_the_fastest_rung_is_of_the_same_training(monkeypatch):
    def other(device):
        model, step, batches = plain(device)
        return model, lambda images, labels: step(images, labels) + 1, batches

    def broken(device):
        raise RuntimeError

    some = [Rung("textbook", broken, None), Rung("no wait per step", plain, None), Rung("x", other, None)]
    monkeypatch.setattr(peers, "RUNGS", [*some, Rung("y", broken, None), Rung("fast", plain, None)])
    monkeypatch.setattr(peers, "alternate", lambda sides, rounds: {n: [len(n)] * rounds for n in sides})
    assert peers.fastest_rung() == "fast"


def documented(x):  # 1
    """One line.

    And more.
    """
    a = [  # 2
        x,  # 3
    ]  # 4

    # not a line
    def inner():  # 5
        """Of its own."""
        return a  # 6

    return inner  # 7


def test_lines_are_counted_without_comments_docstrings_and_empty_lines(monkeypatch):
    monkeypatch.setitem(libraries.PEERS, "it", (documented, documented))
    assert libraries.lines_of_code("it") == 2 * 7
    rung = {name: libraries.lines_of_code("fastest rung", name) for name in ("fused optimizer", "compiled epoch")}
    assert libraries.lines_of_code("plain loop") < rung["fused optimizer"] < rung["compiled epoch"]
