"""The command line: `python -m mnist_gpu train`, `doctor`, `benchmark`."""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from tqdm import tqdm

from mnist_gpu import benchmark, checkpoint, doctor, results
from mnist_gpu.checks import at_least_one, positive
from mnist_gpu.data import PIPELINES, TRAIN_IMAGES, Order, make_batches
from mnist_gpu.device import DEFAULT_THREADS, describe, environment, gpu_message, pick_device, set_threads
from mnist_gpu.distributed import Group, join, make_distributed_step
from mnist_gpu.files import atomic_write
from mnist_gpu.model import make_model
from mnist_gpu.training import Epoch, Evaluation, LossNotFinite, evaluate, make_step, print_loss, train


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m mnist_gpu", description="MNIST on CPUs and GPUs, measured.")
    commands = top.add_subparsers(dest="command", required=True)
    defaults = {"formatter_class": argparse.ArgumentDefaultsHelpFormatter}

    p = commands.add_parser("train", help="train the network on MNIST", **defaults)
    p.add_argument("--epochs", type=int, default=5, help="passes over the training set")
    p.add_argument("--batch-size", type=int, default=128, help="images a step")
    p.add_argument("--hidden", type=int, default=128, help="width of the hidden layer")
    p.add_argument("--lr", type=float, default=0.01, help="learning rate of SGD")
    p.add_argument("--momentum", type=float, default=0.9, help="momentum of SGD, 0 or more and below 1")
    p.add_argument("--seed", type=int, default=0, help="of the initial weights and of the order of the images")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, xpu, or one GPU such as cuda:1")
    p.add_argument("--batches", choices=PIPELINES, default="device", help="the data pipeline")
    p.add_argument(
        "--threads", type=int, default=DEFAULT_THREADS, help="CPU threads; one is right for a network this small"
    )
    p.add_argument("--save", type=Path, metavar="FILE", help="write a checkpoint there when training has finished")
    p.add_argument("--every-epoch", action="store_true", help="write it after every epoch")
    p.add_argument(
        "--resume", type=Path, metavar="FILE", help="go on from this checkpoint; may be the same FILE as for --save"
    )
    p.add_argument("--scale-batch", action="store_true", help="multiply batch size and lr by the number of processes")
    p.add_argument("--timeout", type=float, default=60.0, help="seconds to wait for other processes (torchrun)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write configuration, environment and history there")
    p.set_defaults(run=run_train)

    p = commands.add_parser("doctor", help="say what is here, what is wrong, and what to do", **defaults)
    p.add_argument("--device", default="auto", help="the device to train on")
    p.set_defaults(run=run_doctor)

    p = commands.add_parser("benchmark", help="measure this machine", **defaults)
    p.add_argument("--quick", action="store_true", help="shorter runs: a look, not a record")
    p.add_argument(
        "--only", choices=(*benchmark.SECTIONS, "peers"), action="append", help="one section; may be given again"
    )
    p.add_argument("--record", type=Path, metavar="FILE", help="write the raw times there")
    p.set_defaults(run=run_benchmark)

    p = commands.add_parser("figure", help="draw the speed ladder of all recorded machines", **defaults)
    p.add_argument("file", type=Path, nargs="?", default=results.REFERENCE / "ladder.png", help="a PNG file")
    p.set_defaults(run=run_figure)
    return top


def writable(path: Path | None) -> None:
    """Raises ValueError if `path` cannot be a file to write: found out now rather than after the work."""
    if path and not path.resolve().parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.resolve().parent}")
    if path and path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder")


def run_train(args: argparse.Namespace) -> int:
    at_least_one(epochs=args.epochs, batch_size=args.batch_size, hidden=args.hidden, threads=args.threads)
    positive(lr=args.lr, timeout=args.timeout)
    if not 0 <= args.momentum < 1:
        raise ValueError(f"momentum is {args.momentum}, but must be 0 or more and below 1")
    if args.every_epoch and not args.save:
        raise ValueError("--every-epoch needs --save FILE, to say where")
    set_threads(args.threads)
    with join(args.device, timeout=args.timeout) as group:
        if group.first:
            writable(args.save)
            writable(args.json)
        # The other ranks do the same and say nothing: rank 0 alone prints and writes.
        with contextlib.nullcontext() if group.first else contextlib.redirect_stdout(io.StringIO()):
            return train_in(group, args)


def train_in(group: Group, args: argparse.Namespace) -> int:
    device = group.device
    print(gpu_message(device))
    print(describe(device), flush=True)
    if group.processes > 1:
        print(f"{group.processes} processes share every batch of {args.batch_size} images", flush=True)
    if args.scale_batch:
        args.batch_size, args.lr = args.batch_size * group.processes, args.lr * group.processes
        print(f"--scale-batch: batches of {args.batch_size}, learning rate {args.lr:g} (linear rule)", flush=True)

    batches = make_batches(args.batches, True, args.batch_size, args.seed, device, part=group.part)
    test = make_batches("device", False, 1000, None, device)
    model = make_model(args.hidden, args.seed, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=args.momentum)
    step = (make_distributed_step if group.processes > 1 else make_step)(group.wrap(model), optimizer)
    history, tests = [], []
    if args.resume:
        history, tests = resume(args, group, model, optimizer, batches.order)

    def log(epoch: int, i: int, loss: float) -> None:
        with tqdm.external_write_mode(file=sys.stdout):  # keeps a progress bar from being torn by the line
            print_loss(epoch, i, loss)

    status = 0
    try:
        while len(history) < args.epochs:
            # None: no bar where output is not a terminal. The variable is tqdm's own, but is only its default.
            hidden = True if os.environ.get("TQDM_DISABLE") or not group.first else None
            name = f"epoch {len(history) + 1}"
            with tqdm(batches, desc=name, unit="batch", leave=False, disable=hidden) as bar:
                train(model, step, bar, log=log, history=history)
            if group.processes > 1:
                history[-1] = replace(history[-1], images=TRAIN_IMAGES)  # of all ranks
            tests.append(evaluate(model, test))
            if args.every_epoch and group.first:
                save(args, model, optimizer, history, tests, batches.order)
        print("Finished Training")
    except KeyboardInterrupt:
        print(f"interrupted in epoch {len(history) + 1}; {len(history)} finished")
        status = 130
    except LossNotFinite as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    if tests:
        seconds = statistics.median(e.seconds for e in history)
        images = history[0].images / seconds
        print(f"Test loss {tests[-1].loss:.4f}, test accuracy {tests[-1].accuracy:.2%}")
        print(f"{seconds:.3f} s an epoch (median of {len(history)}), {images:,.0f} images/s")
    if args.json and group.first:
        epochs = [
            asdict(e)
            | {"loss": e.loss, "images_per_s": e.images_per_s, "test_loss": t.loss, "test_accuracy": t.accuracy}
            for e, t in zip(history, tests, strict=False)
        ]
        content = {"configuration": configuration(args), "environment": environment(device), "epochs": epochs}
        with atomic_write(args.json) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())
    if args.save and status == 0 and group.first:
        save(args, model, optimizer, history, tests, batches.order)
        print(f"Saved {args.save}")
    return status


def configuration(args: argparse.Namespace) -> dict:
    """The options of a training, as plain values."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k not in ("run", "command")}


SAME = ("hidden", "batch_size", "lr", "momentum", "seed")  # what makes a training another one


def save(
    args: argparse.Namespace, model, optimizer, history: list[Epoch], tests: list[Evaluation], order: Order
) -> None:
    """A checkpoint from which `resume` goes on to the very same weights."""
    checkpoint.save(
        args.save,
        model,
        optimizer,
        epoch=len(history),
        configuration=configuration(args),
        random={"order": order.generator.get_state(), "torch": torch.get_rng_state()},
        history=[asdict(e) for e in history],
        tests=[list(t) for t in tests],
    )


def resume(args: argparse.Namespace, group: Group, model, optimizer, order: Order) -> tuple[list, list]:
    """Puts a checkpoint's state in place on every rank, and returns its history.

    Without the file that --save is still to write, training begins at the beginning: so one command both starts and,
    after a failure, goes on. Raises CheckpointError if the file is another training's, FileNotFoundError.
    """
    if args.save == args.resume and not group.share(args.resume.exists()):
        print(f"{args.resume} is not there yet: starting at the beginning", flush=True)
        return [], []
    content = group.share(checkpoint.read(args.resume) if group.first else None)  # one machine may have the file alone
    theirs = {name: content.get("configuration", {}).get(name) for name in SAME}
    ours = {name: getattr(args, name) for name in SAME}
    if differing := [f"{name} is {theirs[name]}, not {ours[name]}" for name in SAME if theirs[name] != ours[name]]:
        raise checkpoint.CheckpointError(f"{args.resume} is of another training: its {', its '.join(differing)}")
    checkpoint.restore(content, model, optimizer, args.resume)
    order.generator.set_state(content["random"]["order"].cpu())
    torch.set_rng_state(content["random"]["torch"].cpu())
    history = [Epoch(**e) for e in content["history"]]
    print(f"Resumed {args.resume} after epoch {len(history)}", flush=True)
    return history, [Evaluation(*t) for t in content["tests"]]


def run_doctor(args: argparse.Namespace) -> int:
    findings = doctor.diagnose(args.device)
    print(doctor.report(findings))
    return 0 if doctor.works(findings) else 1


def run_benchmark(args: argparse.Namespace) -> int:
    writable(args.record)
    # What torch.compile compiled in an earlier run would make its first use look cheap.
    with tempfile.TemporaryDirectory() as empty:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty
        return measure_and_record(args)


def measure_and_record(args: argparse.Namespace) -> int:
    device = pick_device()
    set_threads(1)
    print(describe(device))

    def progress(iterable):
        return tqdm(iterable, leave=False, disable=None)

    # Other libraries are measured where one is installed; asked for by name, the missing ones are listed.
    sections = benchmark.SECTIONS + (("peers",) if find_spec("jax") or find_spec("sklearn") else ())

    found = benchmark.benchmark(device, quick=args.quick, only=args.only or sections, progress=progress)
    print(benchmark.summary(found))
    if args.record:
        results.write(args.record, found)
        print(f"Recorded {len(found.measurements)} measurements in {args.record}")
    return 1 if any(s.name == benchmark.BROKEN_OFF for s in found.skipped) else 0


def run_figure(args: argparse.Namespace) -> int:
    writable(args.file)
    import matplotlib

    matplotlib.use("Agg")  # a file is wanted, no window
    from mnist_gpu import ladder, plots

    sources = []
    for r in results.recorded():
        for device in dict.fromkeys(m.device for m in r.select("ladder", hidden=128)):
            measured = r.select("ladder", hidden=128, device=device)
            sources.append((plots.series(r, measured[0]), measured))
    if not sources:
        raise ValueError(f"no machine's ladder is recorded in {results.REFERENCE}")
    names, floors = [rung.name for rung in ladder.RUNGS], [benchmark.FLOOR, benchmark.FLOOR_ONEDNN]
    plots.ladder(sources, names, floors, args.file, Description=results.fingerprint())
    print(f"Drew {args.file}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        return args.run(args)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        notes = getattr(error, "__notes__", [])
        print("\n".join([f"error: {error}", *notes]), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
