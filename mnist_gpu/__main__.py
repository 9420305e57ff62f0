"""The command line: `python -m mnist_gpu train`, `doctor`, `benchmark`, ... It parses and hands over."""

import argparse
import codecs
import functools
import inspect
import io
import sys
from collections.abc import Callable
from pathlib import Path

from mnist_gpu import doctor
from mnist_gpu.batches import PIPELINES
from mnist_gpu.device import memory_error
from mnist_gpu.faster.run import run_training
from mnist_gpu.measuring import benchmark, on_gpu, predict

# Signs that many code pages lack, and what is written there, the best first. The usual micro sign is Latin-1's; the
# pages for Chinese, Japanese and Korean have the Greek letter in its place.
SPELLINGS = {
    "\N{MICRO SIGN}": ("\N{GREEK SMALL LETTER MU}", "u"), "→": ("->",), "×": ("x",), "±": ("+-",), "≤": ("<=",),
    "≥": (">=",), "–": ("-",), "—": ("-",), "‘": ("'",), "’": ("'",), "“": ('"',), "”": ('"',), "…": ("...",),
    "\N{NO-BREAK SPACE}": (" ",),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m mnist_gpu", description="MNIST on CPUs and GPUs, measured.")
    commands = top.add_subparsers(required=True)

    def command(name: str, run: Callable[..., int], help: str) -> argparse.ArgumentParser:
        """A command whose options are the arguments of `run`, with its defaults."""
        p = commands.add_parser(name, help=help, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        p.set_defaults(run=run, **{k: v.default for k, v in inspect.signature(run).parameters.items()})
        return p

    p = command("train", run_training, "train the network on MNIST")
    p.add_argument("--epochs", type=int, help="passes over the training set")
    p.add_argument("--batch-size", type=int, help="images per step")
    p.add_argument("--hidden", type=int, help="width of the hidden layer")
    p.add_argument("--lr", type=float, help="learning rate of SGD")
    p.add_argument("--momentum", type=float, help="momentum of SGD, 0 or more and below 1")
    p.add_argument("--seed", type=int, help="of the initial weights and of the order of the images")
    p.add_argument("--device", help="auto, cpu, cuda, mps, xpu, or one GPU such as cuda:1")
    p.add_argument("--batches", choices=PIPELINES, help="the data pipeline")
    p.add_argument("--threads", type=int, help="CPU threads; one is right for a network this small")
    p.add_argument("--save", type=Path, metavar="FILE", help="write a checkpoint there when training has finished")
    p.add_argument("--every-epoch", action="store_true", help="write it after every epoch")
    p.add_argument(
        "--resume", type=Path, metavar="FILE", help="go on from this checkpoint; may be the same FILE as for --save"
    )
    p.add_argument("--scale-batch", action="store_true", help="multiply batch size and lr by the number of processes")
    p.add_argument("--timeout", type=float, help="seconds to wait for other processes (torchrun)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write configuration, environment and history there")

    p = command("doctor", doctor.run, "say what is here, what is wrong, and what to do")
    p.add_argument("--device", help="the device to train on")
    p.add_argument("--json", action="store_true", help="print it as one line of JSON, for a script to collect")

    p = command("benchmark", benchmark.run, "measure this machine")
    p.add_argument("--quick", action="store_true", help="shorter runs: a look, not a record")
    p.add_argument("--only", choices=benchmark.SECTIONS, action="append", help="one section; may be given again")
    p.add_argument("--on", choices=["cpu", "gpu"], help="on one of the two alone")
    p.add_argument("--record", type=Path, metavar="FILE", help="write the raw times there")
    p.add_argument("--append", action="store_true", help="add them to what is recorded there")

    p = command("predict", predict.run, "what a GPU that is not here would take, from published figures")
    p.add_argument("card", nargs="?", help="one card, such as T4; without it, all")
    p.add_argument("--batch-size", type=int, help="images per step")
    p.add_argument("--hidden", type=int, help="width of the hidden layer")
    p.add_argument("--write-down", type=Path, metavar="FILE", help="write the predictions for every card there, once")

    p = command("figure", benchmark.draw_recorded, "draw the speed ladder of all recorded machines")
    p.add_argument("file", type=Path, nargs="?", help="a PNG file")
    p.add_argument("--add", type=Path, metavar="FILE", help="a results file that is not among the recorded ones")

    p = command("exercises", exercises, "list the chapters' exercises, and which of them you have answered")
    p.add_argument("--keep", action="store_true", help="from now on keep that, in a small file beside the notebooks")

    p = command("gpu", on_gpu.run, "all that only a GPU can show, in ten minutes: checks, tests, record, chapters")
    p.add_argument(
        "folder", type=Path, nargs="?", help="where everything goes; given again, it goes on with what is left"
    )
    p.add_argument("--minutes", type=float, help="how long it may take")
    return top


def exercises(keep: bool = False) -> int:
    from mnist_gpu.exercises import checking  # here: it costs half a second, most of it for matplotlib

    return checking.run(keep)


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
    options = vars(parser().parse_args(arguments))
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
        print("\n".join([f"error: {said}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
