"""The command line: `python -m mnist_gpu train`, `doctor`, `benchmark`, ... It parses and hands over."""

import argparse
import inspect
import io
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args

from mnist_gpu.device import out_of_memory

# Name, module, function and what it is for. The parameters of the function are the options of the command.
COMMANDS = (
    ("train", "run", "run_training", "train the network on MNIST"),
    ("doctor", "doctor", "run", "say what is here, what is wrong, and what to do"),
    ("benchmark", "benchmark", "run", "measure this machine"),
    ("figure", "chapters.chapter_07", "draw_ladder", "draw the speed ladder of all recorded machines"),
    ("editions", "__main__", "editions", "list what is stale or missing in the translated editions"),
    ("gpu", "gpu", "run", "all that only a GPU can show, in ten minutes: checks, tests, record, chapters"),
)


def parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """What the command line takes. Only the `chosen` command is imported: drawing, say, costs half a second."""
    top = argparse.ArgumentParser(prog="python -m mnist_gpu", description="MNIST on CPUs and GPUs, measured.")
    commands = top.add_subparsers(required=True)
    for name, module, function, help in COMMANDS:
        p = commands.add_parser(name, help=help, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        if name == chosen:
            run = getattr(import_module(f"mnist_gpu.{module}"), function)
            p.set_defaults(run=run)
            for parameter in inspect.signature(run).parameters.values():
                # Annotated[its type, what it is for, what else argparse is to know]
                kind, help, *more = get_args(parameter.annotation)
                kind = (*get_args(kind), kind)[0]  # of `Path | None`, too
                options = {"action": "store_true"} if kind is bool else {"type": kind}
                options |= more[0] if more else {}
                option = parameter.name if "nargs" in options else "--" + parameter.name.replace("_", "-")
                p.add_argument(option, help=help, default=parameter.default, **options)
    return top


def editions() -> int:
    """Runs the translators' tool, which stands beside the package in a clone."""
    tool = Path(__file__).resolve().parent.parent / "translations" / "editions.py"
    if not tool.exists():
        raise FileNotFoundError(f"The translations are in a clone of the course only; here is no {tool}.")
    return subprocess.run([sys.executable, tool, "list"]).returncode


def main(arguments: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's is none
            stream.reconfigure(errors="backslashreplace")  # where a code page lacks μ, say, its number and no error
    arguments = sys.argv[1:] if arguments is None else arguments
    options = vars(parser(*arguments[:1]).parse_args(arguments))
    try:
        outcome = options.pop("run")(**options)
        return getattr(outcome, "status", outcome) or 0
    except KeyboardInterrupt:  # where the command has nothing to keep, or has kept it
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise
        said = error.strerror if isinstance(error, OSError) and error.strerror and not error.filename else error
        print(f"error: {said}", file=sys.stderr)
        if out_of_memory(error) and (size := options.get("batch_size")):
            print(f"Batch size {size}. Try a smaller batch, a narrower model, or --device cpu.", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
