"""A whole training, from its settings to its report: joined, resumed, tested and saved, on one process or many."""

import contextlib
import io
import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from tqdm import tqdm

from mnist_gpu import checkpoint
from mnist_gpu.checks import at_least_one, atomic_write, positive, writable
from mnist_gpu.data import TRAIN_IMAGES, Order, make_batches
from mnist_gpu.device import DEFAULT_THREADS, describe, environment, need_memory, set_threads
from mnist_gpu.faster.distributed import Group, join, make_distributed_step
from mnist_gpu.model import PIXELS, make_model, parameter_count
from mnist_gpu.training import Epoch, Evaluation, LossNotFinite, evaluate, make_step, print_loss, train

SAME = ("hidden", "batch_size", "lr", "momentum", "seed")  # what makes a training another one


@dataclass
class Run:
    """What a training gave. status: 0 finished, 1 the loss was not finite, 130 interrupted."""

    status: int = 0
    history: list[Epoch] = field(default_factory=list)
    tests: list[Evaluation] = field(default_factory=list)  # one a finished epoch


def run_training(
    *,
    epochs: int = 5,
    batch_size: int = 128,
    hidden: int = 128,
    lr: float = 0.01,
    momentum: float = 0.9,
    seed: int = 0,
    device: str = "auto",
    batches: str = "device",
    threads: int = DEFAULT_THREADS,
    save: Path | None = None,
    every_epoch: bool = False,
    resume: Path | None = None,
    scale_batch: bool = False,
    timeout: float = 60.0,
    json: Path | None = None,
) -> Run:
    """Trains the network on MNIST, prints what the textbook prints, and tests after every epoch.

    Started by torchrun, the processes share the batches, and rank 0 alone prints and writes.

    Args:
        epochs, batch_size, hidden, lr, momentum, seed: of the training; see mnist_gpu.training, data and model.
        device: see mnist_gpu.device.pick_device.
        batches: the pipeline, see mnist_gpu.data.make_batches.
        threads: of the CPU.
        save: a file for a checkpoint when training has finished; with every_epoch after every epoch.
        resume: a checkpoint to go on from, to the very same weights. It may be the same file as `save`.
        scale_batch: multiply batch size and learning rate by the number of processes.
        timeout: seconds to wait for other processes.
        json: a file for configuration, environment and history.

    Raises:
        ValueError: a setting that cannot be, and what pick_device raises. CheckpointError, FileNotFoundError: `resume`.
        ConnectionError: see mnist_gpu.faster.distributed.join. torch.OutOfMemoryError, MemoryError.
    """
    settings = dict(locals())
    at_least_one(epochs=epochs, batch_size=batch_size, hidden=hidden, threads=threads)
    positive(lr=lr, timeout=timeout)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}, but must be 0 or more and below 1")
    if every_epoch and not save:
        raise ValueError("--every-epoch needs --save FILE, to say where")
    set_threads(threads)
    with join(device, timeout=timeout) as group:
        group.of_first(lambda: [writable(path) for path in (save, json)])
        # The other ranks do the same and say nothing: rank 0 alone prints and writes.
        with contextlib.nullcontext() if group.first else contextlib.redirect_stdout(io.StringIO()):
            return _Training(group, settings).run()


class _Training:
    """The training of one rank, its settings under the names of `run_training`."""

    def __init__(self, group: Group, settings: dict):
        if group.device.type == "cpu":  # float32 weights, gradients, momentum; activations and gradients of both layers
            images, hidden = min(settings["batch_size"], TRAIN_IMAGES) // group.processes, settings["hidden"]
            needed = 4 * (3 * parameter_count(hidden) + images * (PIXELS + 4 * hidden))
            need_memory(needed, f"batches of {settings['batch_size']} images and a network of width {hidden}")
        print(gpu_message(group.device))
        print(describe(group.device), flush=True)
        if group.processes > 1:
            print(f"{group.processes} processes share every batch of {settings['batch_size']} images", flush=True)
        if settings["scale_batch"]:
            settings |= {name: settings[name] * group.processes for name in ("batch_size", "lr")}
            batch_size, lr = settings["batch_size"], settings["lr"]
            print(f"--scale-batch: batches of {batch_size}, learning rate {lr:g} (linear rule)", flush=True)
        self.group, self.settings, self.found = group, settings, Run()
        s, device = settings, group.device
        self.batches = make_batches(s["batches"], True, s["batch_size"], s["seed"], device, part=group.part)
        self.test = make_batches("device", False, 1000, None, device)
        self.model = make_model(s["hidden"], s["seed"], device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=s["lr"], momentum=s["momentum"])
        make = make_distributed_step if group.processes > 1 else make_step
        self.step = make(group.wrap(self.model), self.optimizer)
        if s["resume"]:
            self.resume()

    def run(self) -> Run:
        found, save = self.found, self.settings["save"] if self.group.first else None
        try:
            while len(found.history) < self.settings["epochs"]:
                self.epoch()
                if self.settings["every_epoch"] and save:
                    self.save()
            print("Finished Training")
        except KeyboardInterrupt:
            print(f"interrupted in epoch {len(found.history) + 1}; {len(found.history)} finished")
            found.status = 130
        except LossNotFinite as error:
            print(f"error: {error}", file=sys.stderr)
            found.status = 1
        if found.tests:
            seconds = statistics.median(e.seconds for e in found.history)
            images = found.history[0].images / seconds
            print(f"Test loss {found.tests[-1].loss:.4f}, test accuracy {found.tests[-1].accuracy:.2%}")
            print(f"{seconds:.3f} s per epoch (median of {len(found.history)}), {images:,.0f} images/s")
        if self.settings["json"] and self.group.first:
            self.write_json()
        if save and found.status == 0:
            self.save()
            print(f"Saved {save}")
        return found

    def epoch(self) -> None:
        history = self.found.history
        # None: no bar where output is not a terminal. The variable is tqdm's own, but is only its default.
        hidden = True if os.environ.get("TQDM_DISABLE") or not self.group.first else None
        name = f"epoch {len(history) + 1}"
        with tqdm(self.batches, desc=name, unit="batch", leave=False, disable=hidden) as bar:
            train(self.model, self.step, bar, log=_log, history=history)
        if self.group.processes > 1:
            history[-1] = replace(history[-1], images=TRAIN_IMAGES)  # of all ranks
        self.found.tests.append(evaluate(self.model, self.test))

    def configuration(self) -> dict:
        """The settings as plain values."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in self.settings.items()}

    def write_json(self) -> None:
        epochs = [
            asdict(e)
            | {"loss": e.loss, "images_per_s": e.images_per_s, "test_loss": t.loss, "test_accuracy": t.accuracy}
            for e, t in zip(self.found.history, self.found.tests, strict=False)
        ]
        measured_on = environment(self.group.device)
        content = {"configuration": self.configuration(), "environment": measured_on, "epochs": epochs}
        with atomic_write(self.settings["json"]) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())

    @property
    def order(self) -> Order:
        return self.batches.order

    def save(self) -> None:
        """A checkpoint from which `resume` goes on to the very same weights."""
        checkpoint.save(
            self.settings["save"],
            self.model,
            self.optimizer,
            epoch=len(self.found.history),
            configuration=self.configuration(),
            random={"order": self.order.generator.get_state(), "torch": torch.get_rng_state()},
            history=[asdict(e) for e in self.found.history],
            tests=[list(t) for t in self.found.tests],
        )

    def resume(self) -> None:
        """Puts a checkpoint's state in place on every rank, and its history.

        Without the file that `save` is still to write, training begins at the beginning: so one command both starts
        and, after a failure, goes on. Raises CheckpointError if the file is another training's, FileNotFoundError.
        """
        path, share = self.settings["resume"], self.group.share
        if self.settings["save"] == path and not share(path.exists()):
            print(f"{path} is not there yet: starting at the beginning", flush=True)
            return
        content = self.group.of_first(lambda: checkpoint.read(path))  # one machine may have the file alone
        theirs, ours = content.get("configuration", {}), self.settings
        if other := [f"{k} is {theirs.get(k)}, not {ours[k]}" for k in SAME if theirs.get(k) != ours[k]]:
            raise checkpoint.CheckpointError(f"{path} is of another training: its {', its '.join(other)}")
        checkpoint.restore(content, self.model, self.optimizer, path)
        self.order.generator.set_state(content["random"]["order"].cpu())
        torch.set_rng_state(content["random"]["torch"].cpu())
        self.found.history.extend(Epoch(**e) for e in content["history"])
        self.found.tests.extend(Evaluation(*t) for t in content["tests"])
        print(f"Resumed {path} after epoch {len(self.found.history)}", flush=True)


def gpu_message(device: torch.device) -> str:
    """The textbook's two messages."""
    return "GPU is available!" if device.type != "cpu" else "GPU is not available, switch to CPU!"


def _log(epoch: int, i: int, loss: float) -> None:
    with tqdm.external_write_mode(file=sys.stdout):  # keeps a progress bar from being torn by the line
        print_loss(epoch, i, loss)
