"""The command line: `python -m mnist_gpu train`, `doctor`, `benchmark`, ... It parses and hands over."""

import argparse
import codecs
import functools
import inspect
import io
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from mnist_gpu.data import PIPELINES
from mnist_gpu.device import memory_error

# Signs that many code pages lack, and what is written there, the best first. The usual micro sign is Latin-1's; the
# pages for Chinese, Japanese and Korean have the Greek letter in its place.
SPELLINGS = {
    "\N{MICRO SIGN}": ("\N{GREEK SMALL LETTER MU}", "u"), "→": ("->",), "×": ("x",), "±": ("+-",), "≤": ("<=",),
    "≥": (">=",), "–": ("-",), "—": ("-",), "‘": ("'",), "’": ("'",), "“": ('"',), "”": ('"',), "…": ("...",),
    "\N{NO-BREAK SPACE}": (" ",),
}  # fmt: skip


def parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """What the command line takes. Only the `chosen` command is imported: drawing, say, costs half a second."""
    top = argparse.ArgumentParser(prog="python -m mnist_gpu", description="MNIST on CPUs and GPUs, measured.")
    commands = top.add_subparsers(required=True)
    for name, module, function, help, options in COMMANDS:
        p = commands.add_parser(name, help=help, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        if name == chosen:
            run = getattr(import_module(f"mnist_gpu.{module}"), function)
            p.set_defaults(run=run, **{k: v.default for k, v in inspect.signature(run).parameters.items()})
            options(p.add_argument)
    return top


def train_options(add: Callable) -> None:
    add("--epochs", type=int, help="passes over the training set")
    add("--batch-size", type=int, help="images per step")
    add("--hidden", type=int, help="width of the hidden layer")
    add("--lr", type=float, help="learning rate of SGD")
    add("--momentum", type=float, help="momentum of SGD, 0 or more and below 1")
    add("--seed", type=int, help="of the initial weights and of the order of the images")
    add("--device", help="auto, cpu, cuda, mps, xpu, or one GPU such as cuda:1")
    add("--batches", choices=PIPELINES, help="the data pipeline")
    add("--threads", type=int, help="CPU threads; one is right for a network this small")
    add("--save", type=Path, metavar="FILE", help="write a checkpoint there when training has finished")
    add("--every-epoch", action="store_true", help="write it after every epoch")
    add("--resume", type=Path, metavar="FILE", help="go on from this checkpoint; may be the same FILE as for --save")
    add("--scale-batch", action="store_true", help="multiply batch size and lr by the number of processes")
    add("--timeout", type=float, help="seconds to wait for other processes (torchrun)")
    add("--json", type=Path, metavar="FILE", help="write configuration, environment and history there")


def doctor_options(add: Callable) -> None:
    add("--device", help="the device to train on")
    add("--json", action="store_true", help="print it as one line of JSON, for a script to collect")


def benchmark_options(add: Callable) -> None:
    from mnist_gpu.benchmark import SECTIONS

    add("--quick", action="store_true", help="shorter runs: a look, not a record")
    add("--only", choices=SECTIONS, action="append", help="one section; may be given again")
    add("--on", choices=["cpu", "gpu"], help="on one of the two alone")
    add("--record", type=Path, metavar="FILE", help="write the raw times there")
    add("--append", action="store_true", help="add them to what is recorded there")


def predict_options(add: Callable) -> None:
    add("card", nargs="?", help="one card, such as T4; without it, all")
    add("--batch-size", type=int, help="images per step")
    add("--hidden", type=int, help="width of the hidden layer")


def figure_options(add: Callable) -> None:
    add("file", type=Path, nargs="?", help="a PNG file")
    add("--add", type=Path, metavar="FILE", help="a results file that is not among the recorded ones")


def exercises_options(add: Callable) -> None:
    add("--keep", action="store_true", help="from now on keep that, in a small file beside the notebooks")


def gpu_options(add: Callable) -> None:
    add("folder", type=Path, nargs="?", help="where everything goes; given again, it goes on with what is left")
    add("--minutes", type=float, help="how long it may take")


# Name, module, function, what it is for, and its options, whose defaults are the function's.
COMMANDS = (
    ("train", "run", "run_training", "train the network on MNIST", train_options),
    ("doctor", "doctor", "run", "say what is here, what is wrong, and what to do", doctor_options),
    ("benchmark", "benchmark", "run", "measure this machine", benchmark_options),
    ("predict", "chapters.chapter_05", "run_predict",
     "what a GPU that is not here would take, from published figures", predict_options),
    ("figure", "chapters.chapter_07", "draw_ladder", "draw the speed ladder of all recorded machines", figure_options),
    ("exercises", "benchmark", "exercises",
     "list the chapters' exercises, and which of them you have answered", exercises_options),
    ("gpu", "gpu", "run", "all that only a GPU can show, in ten minutes: checks, tests, record, chapters", gpu_options),
)  # fmt: skip


def spelled(encoding: str, error: UnicodeEncodeError) -> tuple[str | bytes, int]:
    """Handles an error of encoding output: one sign that the page lacks, by its spelling, else as an escape.

    A byte of a path that Python could not decode is written as it was.
    """
    sign, end = error.object[error.start], error.start + 1
    if "\udc80" <= sign <= "\udcff":
        return bytes([ord(sign) - 0xDC00]), end
    escape = sign.encode("ascii", "backslashreplace").decode()
    return next(other for other in (*SPELLINGS.get(sign, ()), escape) if other.encode(encoding, "ignore")), end


def spell_what_the_page_lacks() -> None:
    """Standard output and error write what their code page lacks as well as it goes, where they would raise an error.

    A file or a pipe has the system's page, which on most systems but Windows is UTF-8, and lacks nothing.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's is none
            name = f"spelled in {stream.encoding}"
            codecs.register_error(name, functools.partial(spelled, stream.encoding))
            stream.reconfigure(errors=name)


def main(arguments: list[str] | None = None) -> int:
    spell_what_the_page_lacks()
    arguments = sys.argv[1:] if arguments is None else arguments
    options = vars(parser(*arguments[:1]).parse_args(arguments))
    try:
        outcome = options.pop("run")(**options)
        return getattr(outcome, "status", outcome)
    except KeyboardInterrupt:  # where the command has nothing to keep, or has kept it
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not (error := memory_error(error)):
            raise
        said = error.strerror if isinstance(error, OSError) and error.strerror and not error.filename else error
        print(f"error: {said}", file=sys.stderr)
        if memory_error(error) and (size := options.get("batch_size")):  # what was free, the error itself says
            print(f"Batch size {size}. Try a smaller batch, a narrower model, or --device cpu.", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
