"""The same training as other libraries' users would write it.

Every peer is a function `(images, labels, weights) -> (epoch, get_weights)`: images `[N, 784]` float32 in -1..1 and
labels `[N]` int64, NumPy arrays in memory, and the course's initial weights (W1 `[784, 128]`, b1, W2 `[128, 10]`, b2).
`epoch()` trains for one pass: 784-128-10, batches of 128 in random order, SGD at 0.01 with momentum 0.9.
`get_weights()` returns four arrays in the form they were given. A library that chooses its weights itself may do so.
"""

import ast
import inspect
import io
import os
import textwrap
import tokenize
from collections.abc import Callable

import torch
from torch import nn

from mnist_gpu.faster.compiled_epoch import CompiledEpoch, many_steps, training_step
from mnist_gpu.faster.ladder import PLAIN, rungs
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.faster.written_out import make_written_out_step
from mnist_gpu.training import make_step, train


def of_course(images, labels, weights, rung=PLAIN):
    training = rungs([rung])[0].make(torch.device("cpu"))
    return lambda: train(*training, log=lambda *_: None), lambda: weights_of(training.model)


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

    model = torch_model(weights)
    net = NeuralNetClassifier(
        model, criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.SGD, optimizer__momentum=0.9, lr=0.01,
        batch_size=128, max_epochs=1, iterator_train__shuffle=True, train_split=None, verbose=0, warm_start=True,
    )  # fmt: skip
    net.initialize()
    return lambda: net.partial_fit(images, labels), lambda: weights_of(net.module_)


def lightning(images, labels, weights):
    import lightning
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = torch_model(weights)

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

    return epoch, lambda: weights_of(classifier.model)


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
    model = torch_model(weights)

    def optimizer(parameters, **options):
        return OptimWrapper(parameters, torch.optim.SGD, lr=0.01, momentum=0.9)

    dataloaders, loss = DataLoaders(loader, loader), torch.nn.CrossEntropyLoss()
    learner = Learner(dataloaders, model, loss, optimizer, lr=0.01, cbs=NoValidation())
    learner.remove_cbs([ProgressCallback, Recorder])
    return lambda: learner.fit(1), lambda: weights_of(model)


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


def torch_model(weights) -> nn.Module:
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), weights, strict=True):
            parameter.copy_(torch.tensor(weight.T))
    return model


def weights_of(model: nn.Module) -> list:
    return [p.detach().numpy().T for p in model.parameters()]


def lines_of_code(name: str, rung: str = PLAIN) -> int:
    """Lines of a peer's training, or of a rung's: its functions and what it uses of the course, without comments."""
    parts = PEERS[name]
    if name == OURS[1]:
        parts = (*parts, rungs([rung])[0].make, *MADE_OF.get(rung, (make_step,)))
    return sum(map(_lines, parts))


def _lines(function: Callable) -> int:
    source = textwrap.dedent(inspect.getsource(getattr(function, "func", function)))
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)
