"""A whole training, from its settings to its report: joined, resumed, tested and saved, on one process or many."""

import contextlib
import io
import json
import statistics
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch

from mnist_gpu import checkpoint
from mnist_gpu.checks import at_least_one, atomic_write, positive, writable
from mnist_gpu.data import PIPELINES, TRAIN_IMAGES, make_batches
from mnist_gpu.device import DEFAULT_THREADS, describe, environment, set_threads
from mnist_gpu.faster.distributed import Group, join, make_distributed_step
from mnist_gpu.faster.webgpu_epoch import WebGPUEpoch
from mnist_gpu.model import make_model
from mnist_gpu.training import Epoch, Evaluation, LossNotFinite, evaluate, make_step, train
from mnist_gpu.webgpu.gpu import the_gpu

SAME = ("hidden", "batch_size", "lr", "momentum", "seed")  # what makes a training another one


def run_training(
    *,
    epochs: Annotated[int, "passes over the training set"] = 5,
    batch_size: Annotated[int, "images per step"] = 128,
    hidden: Annotated[int, "width of the hidden layer"] = 128,
    lr: Annotated[float, "learning rate of SGD"] = 0.01,
    momentum: Annotated[float, "momentum of SGD, 0 or more and below 1"] = 0.9,
    seed: Annotated[int, "of the initial weights and of the order of the images"] = 0,
    device: Annotated[str, "auto, cpu, cuda, mps, xpu, one GPU such as cuda:1, webgpu, or webgpu:NAME"] = "auto",
    batches: Annotated[str, "the data pipeline", {"choices": PIPELINES}] = "device",
    threads: Annotated[int, "CPU threads; one is right for a network this small"] = DEFAULT_THREADS,
    save: Annotated[Path | None, "write a checkpoint there after every epoch"] = None,
    resume: Annotated[Path | None, "go on from this checkpoint; may be the file of --save"] = None,
    timeout: Annotated[float, "seconds to wait for other processes (torchrun)"] = 60.0,
    json: Annotated[Path | None, "write configuration, environment and history there"] = None,
) -> "Training":
    """Trains the network on MNIST, prints what the textbook prints, and tests after every epoch.

    Started by torchrun, the processes share the batches. Raises ValueError for a setting that cannot be,
    CheckpointError and FileNotFoundError for `resume`, and what mnist_gpu.faster.distributed.join and train raise.
    """
    settings = dict(locals())
    at_least_one(epochs=epochs, batch_size=batch_size, hidden=hidden, threads=threads)
    positive(lr=lr, timeout=timeout)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}, but must be 0 or more and below 1")
    set_threads(threads)
    with join("cpu" if device.split(":")[0] == "webgpu" else device, timeout=timeout) as group:
        group.of_first(lambda: [writable(path) for path in (save, json)])
        # The other ranks do the same and say nothing: rank 0 alone prints and writes.
        with contextlib.nullcontext() if group.rank == 0 else contextlib.redirect_stdout(io.StringIO()):
            return Training(group, settings).run()


class Training:
    """One rank's training: its `history`, its `tests`, one an epoch; `status` 1: loss not finite; 130: interrupted."""

    def __init__(self, group: Group, settings: dict):
        s, device, gpu = settings, group.device, None
        if s["device"].split(":")[0] == "webgpu":  # the model stays on the CPU, between its epochs
            if group.processes > 1 or s["batches"] != "device":
                raise ValueError(f"--device {s['device']} takes one process and --batches device")
            gpu = the_gpu(s["device"].partition(":")[2])
        found = gpu or device.type != "cpu"
        print("GPU is available!" if found else "GPU is not available, switch to CPU!")  # as the textbook
        print(f"Device: {gpu.adapter}, through WebGPU" if gpu else describe(device), flush=True)
        if group.processes > 1:
            print(f"{group.processes} processes share every batch of {s['batch_size']} images", flush=True)
        self.group, self.settings, self.status = group, s, 0
        self.history, self.tests = [], []
        part = group.rank, group.processes
        self.batches = make_batches(s["batches"], True, s["batch_size"], s["seed"], device, part=part)
        self.test = make_batches("device", False, 1000, None, device)
        self.model = make_model(s["hidden"], s["seed"], device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=s["lr"], momentum=s["momentum"])
        make = make_distributed_step if group.processes > 1 else make_step
        self.step = make(group.wrap(self.model), self.optimizer)
        if gpu:
            self.batches = WebGPUEpoch(gpu, self.model, self.optimizer, self.batches)
            self.step = self.batches.step
        self.configuration = {name: str(v) if isinstance(v, Path) else v for name, v in s.items()}
        if s["resume"]:
            self.resume()

    def run(self) -> "Training":
        save = self.settings["save"] if self.group.rank == 0 else None
        try:
            while len(self.history) < self.settings["epochs"]:
                train(self.model, self.step, self.batches, history=self.history)
                self.history[-1] = replace(self.history[-1], images=TRAIN_IMAGES)  # of all ranks
                self.tests.append(evaluate(self.model, self.test))
                if save:
                    self.save()
            print("Finished Training")
        except KeyboardInterrupt:
            print(f"interrupted in epoch {len(self.history) + 1}; {len(self.history)} finished")
            self.status = 130
        except LossNotFinite as error:
            print(f"error: {error}", file=sys.stderr)
            self.status = 1
        if self.tests:
            seconds = statistics.median(e.seconds for e in self.history)
            print(f"Test loss {self.tests[-1].loss:.4f}, test accuracy {self.tests[-1].accuracy:.2%}")
            print(f"{seconds:.3f} s per epoch (median of {len(self.history)}), {TRAIN_IMAGES / seconds:,.0f} images/s")
        if self.settings["json"] and self.group.rank == 0:
            pairs = zip(self.history, self.tests, strict=False)
            epochs = [asdict(e) | {"test_loss": t.loss, "test_accuracy": t.accuracy} for e, t in pairs]
            about = {"configuration": self.configuration, "environment": environment(self.group.device)}
            with atomic_write(self.settings["json"]) as file:
                file.write((json.dumps(about | {"epochs": epochs}, indent=1) + "\n").encode())
        if save and self.status == 0:
            self.save()
            print(f"Saved {save}")
        return self

    def save(self) -> None:
        """A checkpoint from which `resume` goes on to the very same weights."""
        random = {"order": self.batches.order.generator.get_state(), "torch": torch.get_rng_state()}
        found = {"history": [asdict(e) for e in self.history], "tests": [list(t) for t in self.tests]}
        found |= {"epoch": len(self.history), "random": random, "configuration": self.configuration}
        checkpoint.save(self.settings["save"], self.model, self.optimizer, **found)

    def resume(self) -> None:
        """Puts a checkpoint's state and history in place on every rank; another training's is a CheckpointError."""
        path, of_first = self.settings["resume"], self.group.of_first
        if self.settings["save"] == path and not of_first(path.exists):
            print(f"{path} is not there yet: starting at the beginning", flush=True)
            return
        content = of_first(lambda: checkpoint.read(path))  # one machine may have the file alone
        theirs, ours = content.get("configuration", {}), self.settings
        if other := [f"{k} is {theirs.get(k)}, not {ours[k]}" for k in SAME if theirs.get(k) != ours[k]]:
            raise checkpoint.CheckpointError(f"{path} is of another training: its {', its '.join(other)}")
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.batches.order.generator.set_state(content["random"]["order"].cpu())
        torch.set_rng_state(content["random"]["torch"].cpu())
        self.history.extend(Epoch(**e) for e in content["history"])
        self.tests.extend(Evaluation(*t) for t in content["tests"])
        print(f"Resumed {path} after epoch {len(self.history)}", flush=True)
