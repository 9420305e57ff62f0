"""The command line: `python -m mnist_gpu train`, `doctor`, `benchmark`."""

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from mnist_gpu import benchmark, checkpoint, doctor, results
from mnist_gpu.checks import at_least_one, positive
from mnist_gpu.data import PIPELINES, make_batches
from mnist_gpu.device import DEFAULT_THREADS, describe, environment, gpu_message, pick_device, set_threads
from mnist_gpu.files import atomic_write
from mnist_gpu.model import make_model
from mnist_gpu.training import LossNotFinite, evaluate, make_step, print_loss, train


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
    p.add_argument("--save", type=Path, metavar="FILE", help="write the trained weights there")
    p.add_argument("--json", type=Path, metavar="FILE", help="write configuration, environment and history there")
    p.set_defaults(run=run_train)

    p = commands.add_parser("doctor", help="say what is here, what is wrong, and what to do", **defaults)
    p.add_argument("--device", default="auto", help="the device to train on")
    p.set_defaults(run=run_doctor)

    p = commands.add_parser("benchmark", help="measure this machine", **defaults)
    p.add_argument("--quick", action="store_true", help="shorter runs: a look, not a record")
    p.add_argument("--only", choices=benchmark.SECTIONS, action="append", help="one section; may be given again")
    p.add_argument("--record", type=Path, metavar="FILE", help="write the raw times there")
    p.set_defaults(run=run_benchmark)
    return top


def writable(path: Path | None) -> None:
    """Raises ValueError if `path` cannot be a file to write: found out now rather than after the work."""
    if path and not path.resolve().parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.resolve().parent}")
    if path and path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder")


def run_train(args: argparse.Namespace) -> int:
    at_least_one(epochs=args.epochs, batch_size=args.batch_size, hidden=args.hidden, threads=args.threads)
    positive(lr=args.lr)
    if not 0 <= args.momentum < 1:
        raise ValueError(f"momentum is {args.momentum}, but must be 0 or more and below 1")
    writable(args.save)
    writable(args.json)
    device = pick_device(args.device)
    set_threads(args.threads)
    print(gpu_message(device))
    print(describe(device), flush=True)

    batches = make_batches(args.batches, True, args.batch_size, args.seed, device)
    test = make_batches("device", False, 1000, None, device)
    model = make_model(args.hidden, args.seed, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=args.momentum)
    step = make_step(model, optimizer)

    history, tests = [], []

    def log(epoch: int, i: int, loss: float) -> None:
        with tqdm.external_write_mode(file=sys.stdout):  # keeps a progress bar from being torn by the line
            print_loss(epoch, i, loss)

    status = 0
    try:
        for epoch in range(1, args.epochs + 1):
            # disable=None: no bar where output is not a terminal
            with tqdm(batches, desc=f"epoch {epoch}", unit="batch", leave=False, disable=None) as bar:
                train(model, step, bar, log=log, history=history)
            tests.append(evaluate(model, test))
        print("Finished Training")
    except KeyboardInterrupt:
        print(f"interrupted in epoch {len(history) + 1}; {len(history)} finished")
        status = 130
    except LossNotFinite as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    if tests:
        seconds = statistics.median(e.seconds for e in history)
        print(f"Test loss {tests[-1].loss:.4f}, test accuracy {tests[-1].accuracy:.2%}")
        print(f"{seconds:.3f} s an epoch (median of {len(history)}), {history[0].images / seconds:,.0f} images/s")
    config = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k not in ("run", "command")}
    if args.json:
        epochs = [
            {
                **asdict(e),
                "loss": e.loss,
                "images_per_s": e.images_per_s,
                "test_loss": t.loss,
                "test_accuracy": t.accuracy,
            }
            for e, t in zip(history, tests, strict=False)
        ]
        content = {"configuration": config, "environment": environment(device), "epochs": epochs}
        with atomic_write(args.json) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())
    if args.save and status == 0:
        checkpoint.save(args.save, model, optimizer, epoch=len(history), configuration=config)
        print(f"Saved {args.save}")
    return status


def run_doctor(args: argparse.Namespace) -> int:
    findings = doctor.diagnose(args.device)
    print(doctor.report(findings))
    return 0 if doctor.works(findings) else 1


def run_benchmark(args: argparse.Namespace) -> int:
    writable(args.record)
    device = pick_device()
    set_threads(1)
    print(describe(device))

    def progress(iterable):
        return tqdm(iterable, leave=False, disable=None)

    found = benchmark.benchmark(device, quick=args.quick, only=args.only or benchmark.SECTIONS, progress=progress)
    print(benchmark.summary(found))
    if args.record:
        results.write(args.record, found)
        print(f"Recorded {len(found.measurements)} measurements in {args.record}")
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
