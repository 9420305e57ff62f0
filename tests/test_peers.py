import inspect
import math
import os
import signal
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from mnist_gpu.batches import make_batches
from mnist_gpu.faster.ladder import RUNGS, plain, rungs
from mnist_gpu.measuring import peers
from mnist_gpu.measuring.peers import ONE_THREAD, OURS, PEERS, Peer, lines_of_code
from mnist_gpu.measuring.workloads import train_part
from mnist_gpu.model import make_model
from mnist_gpu.training import evaluate


@pytest.fixture
def peer():
    """Starts peers, and ends them after the test."""
    started = []

    def start(*name):
        started.append(Peer(*name))
        return started[-1]

    yield start
    for one in started:
        one.close()
        assert one.process.poll() is not None and one.errors.closed


# In a process of its own


def test_the_plain_loop_as_a_peer_is_the_plain_loop(peer):
    process = peer("plain loop")
    first = process()
    training = plain("cpu")
    train_part(training)
    found = evaluate(training.model, make_batches("device", train=False, batch_size=1000, seed=None))
    assert set(first) == {"seconds", "test_loss", "test_accuracy"} and first["seconds"] > 0
    assert first["test_loss"] == pytest.approx(found.loss, rel=1e-3)
    assert first["test_accuracy"] == pytest.approx(found.accuracy, abs=1e-3) and found.accuracy > 0.88
    assert set(process()) == {"seconds"}  # later epochs only train


def test_the_fastest_rung_as_a_peer_is_the_rung_that_is_named(peer):
    found = peer("fastest rung", "backward written out")()
    train_part(training := rungs(["backward written out"])[0].make(torch.device("cpu")))
    expected = evaluate(training.model, make_batches("device", train=False, batch_size=1000, seed=None))
    assert found["test_loss"] == pytest.approx(expected.loss, rel=0.02)  # see agreement.py


# A library that is not there, in place of the one that may be.
NEURAL_NETWORK = """
import os
import sys

import numpy as np
import torch

print("a library that greets")


class MLPClassifier:
    def __init__(self, width, **options):
        self.epochs = 0

    def fit(self, images, labels):
        print("a library that talks")
        assert images.shape == (60000, 784) and images.dtype == np.float32 and labels.dtype == np.int64
        assert (images.min(), images.max()) == (-1, 1)
        self.epochs += 1
        if self.epochs == 2:
            variables = {name: os.environ[name] for name in %r}
            cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
            print("Traceback: a first line", file=sys.stderr)
            raise ValueError(f"{sorted(variables.items())} {torch.get_num_threads()} {cpus}")
        self.coefs_ = np.zeros((784, 128)), np.zeros((128, 10))  # so every digit is as likely: a loss of ln 10
        self.intercepts_ = np.zeros(128), np.zeros(10)
"""
SETTINGS = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"]


@pytest.fixture
def a_library(tmp_path, monkeypatch):
    """scikit-learn, as far as the peer needs it."""
    folder = tmp_path / "sklearn"
    folder.mkdir()
    (folder / "__init__.py").write_text("", encoding="utf-8")
    (folder / "exceptions.py").write_text("class ConvergenceWarning(UserWarning): pass\n", encoding="utf-8")
    (folder / "neural_network.py").write_text(NEURAL_NETWORK % SETTINGS, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path) + os.pathsep + os.environ.get("PYTHONPATH", ""))


def test_a_peer_answers_with_its_test_loss_and_ends_with_its_error_on_one_cpu(a_library, peer, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    process = peer("scikit-learn")
    answer = process()  # whatever the library prints is none
    assert answer["test_loss"] == pytest.approx(math.log(10), rel=1e-6)
    assert answer["test_accuracy"] == pytest.approx(0.098)  # 980 of 10,000 test images are zeros
    expected = sorted((name, ONE_THREAD[name]) for name in SETTINGS)
    assert ("OMP_NUM_THREADS", "1") in expected
    for _ in range(2):  # it stays ended
        with pytest.raises(RuntimeError) as caught:
            process()
        assert str(caught.value)[:200] == f"ValueError: {expected} 1 1"[:200]


@pytest.mark.skipif(find_spec("sklearn") is not None, reason="scikit-learn is installed here")
def test_a_library_that_is_not_installed_is_named(peer):
    with pytest.raises(RuntimeError, match="ModuleNotFoundError: No module named 'sklearn'"):
        peer("scikit-learn")()


def test_a_peer_that_was_killed_says_its_status(peer):
    process = peer("plain loop")
    process.process.kill()
    process.process.wait()
    with pytest.raises(RuntimeError, match="ended with status -9" if os.name == "posix" else "ended with status"):
        process()


@pytest.mark.skipif(os.name != "posix", reason="the status tells of the signal on POSIX only")
def test_a_peer_that_is_closed_is_ended_whatever_it_is_doing(peer):
    process = peer("plain loop")
    process.close()
    assert process.process.returncode == -signal.SIGKILL


def test_a_peer_is_started_with_one_thread_in_a_session_of_its_own(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *command, **options: started.append((command, options)))
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    one = Peer("fastest rung", "fused optimizer")
    (((command,), options),) = started
    assert command == [sys.executable, "-m", "mnist_gpu.measuring.peers", "fastest rung", "fused optimizer"]
    assert not os.listdir(options["env"]["TORCHINDUCTOR_CACHE_DIR"])  # nothing is found compiled
    one.errors.close()
    one.compiled.cleanup()
    assert options["env"].items() >= (ONE_THREAD | {"SOMETHING_ELSE": "kept"}).items()
    assert options["start_new_session"] is True  # Ctrl-C is for the benchmark


# What every peer is given and gives


def test_our_peers_begin_with_the_courses_weights_and_give_them_back():
    weights = [p.detach().numpy().T for p in make_model().parameters()]
    for name in OURS:
        epoch, get_weights = PEERS[name][0](None, None, weights)
        found = [np.asarray(w) for w in get_weights()]
        assert [w.shape for w in found] == [(784, 128), (128,), (128, 10), (10,)]
        assert all(np.array_equal(ours, w) for ours, w in zip(found, weights, strict=True)), name
        assert callable(epoch)


def test_a_torch_model_of_a_peer_computes_what_the_courses_does():
    model = make_model(seed=3)
    theirs = peers._torch_model(peers._of_model(model))
    images = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(theirs(images.flatten(1)), model(images), atol=1e-6)
    assert all(p.requires_grad for p in theirs.parameters())


# Lines of code


def five():  # 1
    a = [  # 2
        1,  # 3
    ]  # 4

    # not a line
    return a  # 5


def commented():  # 1
    # not a line

    return 1  # 2


def nested(x):  # 1
    if x:  # 2
        for i in range(  # 3
            3  # 4
        ):  # 5
            print(i)  # 6

    def inner(y):  # 7
        return y  # 8

    class Thing:  # 9
        value = 1  # 10

    with open(x, encoding="utf-8") as file:  # 11
        file.read(), inner(Thing)  # 12


def documented(x):  # 1
    """One line.

    And more.
    """

    def inner():  # 2
        """Of its own."""
        return x  # 3

    return inner  # 4


def branches(x):  # 1
    try:  # 2
        return 1 / x  # 3
    except ZeroDivisionError:  # 4
        return 0  # 5
    finally:  # 6
        print(x)  # 7
        if x:  # 8
            print(x)  # 9
        else:  # 10
            print(x)  # 11


@pytest.mark.parametrize(
    ("function", "lines"),
    [
        (five, 5),
        (nested, 12),
        (commented, 2),
        (documented, 4),
        (branches, 11),
    ],
)
def test_lines_are_counted_without_comments_docstrings_and_empty_lines(monkeypatch, function, lines):
    monkeypatch.setitem(PEERS, "it", (function,))
    assert lines_of_code("it") == lines


def test_the_lines_of_a_peer_are_those_of_all_it_uses(monkeypatch):
    monkeypatch.setitem(PEERS, "it", (five, nested))
    assert lines_of_code("it") == 5 + 12


def test_the_lines_of_every_peer_are_fewer_than_those_of_its_source():
    for name, functions in PEERS.items():
        if name != "fastest rung":
            assert 2 < lines_of_code(name) <= sum(len(inspect.getsource(f).splitlines()) for f in functions), name


def test_the_lines_of_the_fastest_rung_are_those_of_the_rung_that_it_is():
    loop = lines_of_code("plain loop")
    lines = {rung.name: lines_of_code("fastest rung", rung.name) for rung in RUNGS}
    assert loop < lines["fused optimizer"] < lines["backward written out"] < lines["compiled epoch"]
    assert lines["backward written out"] < lines["written out, oneDNN"] + 10
