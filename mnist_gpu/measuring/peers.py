"""The same training as other libraries' users would write it, for the benchmark's section `peers`.

Every peer is a function `(images, labels, weights) -> (epoch, get_weights)`: images `[N, 784]` float32 in -1..1 and
labels `[N]` int64, NumPy arrays in memory, and the course's initial weights (W1 `[784, 128]`, b1, W2 `[128, 10]`, b2).
`epoch()` trains for one pass: 784-128-10, batches of 128 in random order, SGD at 0.01 with momentum 0.9.
`get_weights()` returns four arrays in the form they were given. A library that chooses its weights itself may do so.

Each runs in a process of its own, held to one CPU: `python -m mnist_gpu.measuring.peers NAME` answers every line on its
standard input with one epoch; after "fastest rung" comes the rung's name. None of these libraries is needed for the
course: see requirements-peers.txt.
"""

import ast
import contextlib
import inspect
import io
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
import tokenize
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from mnist_gpu.batches import make_batches, normalize
from mnist_gpu.device import set_threads
from mnist_gpu.faster.compiled_epoch import CompiledEpoch, many_steps, training_step
from mnist_gpu.faster.ladder import PLAIN, rungs
from mnist_gpu.faster.watched import with_this_package
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.faster.written_out import make_written_out_step
from mnist_gpu.mnist import load_mnist
from mnist_gpu.model import make_model
from mnist_gpu.training import evaluate, make_step, train


def of_course(images, labels, weights, rung=PLAIN):
    training = rungs([rung])[0].make(torch.device("cpu"))
    return lambda: train(*training, log=lambda *_: None), lambda: _of_model(training.model)


def jax_scanned_epoch(images, labels, weights, scan=True):
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    images, labels = jnp.asarray(images), jnp.asarray(labels, dtype=jnp.int32)
    optimizer = optax.sgd(0.01, momentum=0.9)
    random = np.random.default_rng(0)

    def loss_of(params, x, y):
        w1, b1, w2, b2 = params
        logits = jax.nn.relu(x @ w1 + b1) @ w2 + b2
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def step(carry, index):
        params, state = carry
        loss, gradients = jax.value_and_grad(loss_of)(params, images[index], labels[index])
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(params, updates), state), loss

    def scanned(carry, order):
        full = len(order) // 128 * 128
        carry, losses = jax.lax.scan(step, carry, order[:full].reshape(-1, 128))
        carry, last = step(carry, order[full:])
        return carry, jnp.append(losses, last)

    params = tuple(map(jnp.asarray, weights))
    carry = params, optimizer.init(params)
    compiled = jax.jit(scanned if scan else step, donate_argnums=0)

    def epoch():
        nonlocal carry
        order = random.permutation(len(images))
        for part in [order] if scan else np.split(order, range(128, len(order), 128)):
            carry, _ = compiled(carry, part)
        jax.block_until_ready(carry)

    return epoch, lambda: carry[0]


def jax_jitted_step(images, labels, weights):
    return jax_scanned_epoch(images, labels, weights, scan=False)


def scikit_learn(images, labels, weights):
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore", ConvergenceWarning)  # one epoch is asked for
    model = MLPClassifier(
        128, solver="sgd", alpha=0, batch_size=128, learning_rate_init=0.01, momentum=0.9,
        nesterovs_momentum=False, max_iter=1, n_iter_no_change=1000, warm_start=True, random_state=0,
    )  # fmt: skip
    return lambda: model.fit(images, labels), lambda: [
        model.coefs_[0], model.intercepts_[0], model.coefs_[1], model.intercepts_[1],
    ]  # fmt: skip


def keras(images, labels, weights):
    import keras

    model = keras.Sequential(
        [keras.Input((784,)), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10)]
    )  # fmt: skip
    model.set_weights(weights)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    return lambda: model.fit(images, labels, batch_size=128, epochs=1, verbose=0), model.get_weights


def keras_on_jax(images, labels, weights):
    os.environ["KERAS_BACKEND"] = "jax"
    return keras(images, labels, weights)


def keras_on_torch(images, labels, weights):
    os.environ["KERAS_BACKEND"] = "torch"
    return keras(images, labels, weights)


def skorch(images, labels, weights):
    import torch
    from skorch import NeuralNetClassifier

    model = _torch_model(weights)
    net = NeuralNetClassifier(
        model, criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.SGD, optimizer__momentum=0.9, lr=0.01,
        batch_size=128, max_epochs=1, iterator_train__shuffle=True, train_split=None, verbose=0, warm_start=True,
    )  # fmt: skip
    net.initialize()
    return lambda: net.partial_fit(images, labels), lambda: _of_model(net.module_)


def lightning(images, labels, weights):
    import lightning
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = _torch_model(weights)

        def training_step(self, batch, index):
            images, labels = batch
            return torch.nn.functional.cross_entropy(self.model(images), labels)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    dataset = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    loader = DataLoader(dataset, batch_size=128, shuffle=True)
    classifier = Classifier()
    trainer = lightning.Trainer(
        max_epochs=0, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip

    def epoch():
        trainer.fit_loop.max_epochs += 1
        trainer.fit(classifier, loader)

    return epoch, lambda: _of_model(classifier.model)


def fastai(images, labels, weights):
    import torch
    from fastai.callback.core import Callback, CancelValidException
    from fastai.callback.progress import ProgressCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner, Recorder
    from fastai.optimizer import OptimWrapper
    from torch.utils.data import DataLoader, TensorDataset

    class NoValidation(Callback):
        def before_validate(self):
            raise CancelValidException

    dataset = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    loader = DataLoader(dataset, batch_size=128, shuffle=True)
    model = _torch_model(weights)

    def optimizer(parameters, **options):
        return OptimWrapper(parameters, torch.optim.SGD, lr=0.01, momentum=0.9)

    dataloaders, loss = DataLoaders(loader, loader), torch.nn.CrossEntropyLoss()
    learner = Learner(dataloaders, model, loss, optimizer, lr=0.01, cbs=NoValidation())
    learner.remove_cbs([ProgressCallback, Recorder])
    return lambda: learner.fit(1), lambda: _of_model(model)


# The function, and what of the course is part of its training.
PEERS = {
    "plain loop": (of_course, make_step, train),
    "fastest rung": (of_course, train),  # and what its rung is made of
    "JAX, scanned epoch": (jax_scanned_epoch,),
    "JAX, jitted step": (jax_jitted_step, jax_scanned_epoch),
    "scikit-learn": (scikit_learn,),
    "Keras on JAX": (keras_on_jax, keras),
    "Keras on torch": (keras_on_torch, keras),
    "skorch": (skorch,),
    "Lightning": (lightning,),
    "fastai": (fastai,),
}
OURS = ("plain loop", "fastest rung")
MADE_OF = {
    "backward written out": (make_written_out_step,),
    "written out, oneDNN": (make_written_out_step,),
    "compiled epoch": (CompiledEpoch, WholeEpoch, many_steps, training_step),
}
# One thread everywhere. A process that may run on one CPU only is held to it by the system as well, where it can be.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "KERAS_TORCH_DEVICE": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}


def _torch_model(weights) -> nn.Module:
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), weights, strict=True):
            parameter.copy_(torch.tensor(weight.T))
    return model


def _of_model(model: nn.Module) -> list:
    return [p.detach().numpy().T for p in model.parameters()]


def lines_of_code(name: str, rung: str = PLAIN) -> int:
    """Lines of a peer's training, or of a rung's: its functions and what it uses of the course, without comments."""
    parts = PEERS[name]
    if name == OURS[1]:
        parts = (*parts, rungs([rung])[0].make, *MADE_OF.get(rung, (make_step,)))
    return sum(map(_lines, parts))


def _lines(function: Callable) -> int:
    source = textwrap.dedent(inspect.getsource(function))
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


class Peer:
    """A peer in a process of its own. The first call trains one pass and returns what it gave, later ones only train.

    `rung` is the course's, for "fastest rung". Raises RuntimeError with the last line of what the process said, if it
    ends.
    """

    def __init__(self, name: str, *rung: str):
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.compiled = tempfile.TemporaryDirectory()  # empty, or the first use of a rung would find it compiled
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mnist_gpu.measuring.peers", name, *rung],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            encoding="utf-8",
            env=with_this_package(os.environ | ONE_THREAD) | {"TORCHINDUCTOR_CACHE_DIR": self.compiled.name},
            start_new_session=True,  # an interrupt is for the benchmark, which then ends its peers
        )

    def __call__(self) -> dict:
        try:
            self.process.stdin.write("epoch\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError):  # it has ended, or answers nonsense
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines() or [f"ended with status {self.process.returncode}"]
            raise RuntimeError(lines[-1][:200]) from None

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()
        self.compiled.cleanup()


def serve(name: str, *rung: str) -> None:
    """What the process does: an epoch a line of standard input. It answers, at first with the test loss as well."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    set_threads(1)
    pixels, labels = load_mnist(train=True)
    weights = [w.copy() for w in _of_model(make_model())]
    epoch, get_weights = PEERS[name][0](normalize(pixels).flatten(1).numpy(), labels.numpy(), weights, *rung)
    test = make_batches("device", train=False, batch_size=1000, seed=None)
    for i, _ in enumerate(sys.stdin):
        start = time.perf_counter()
        epoch()
        answer = {"seconds": time.perf_counter() - start}
        if i == 0:
            found = [torch.tensor(np.asarray(w)).numpy() for w in get_weights()]
            loss, accuracy = evaluate(nn.Sequential(nn.Flatten(), _torch_model(found)), test)
            answer |= {"test_loss": loss, "test_accuracy": accuracy}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
