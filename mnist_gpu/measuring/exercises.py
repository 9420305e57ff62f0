"""Exercises that check themselves: what an answer is given, what it should give, and the hint for a wrong one.

A chapter's room has its exercises as a tuple. Most are `compared`: the answer and the reference get the same input,
random, with odd sizes and edge cases among it. `check` judges one, and notes the right answers of readers who keep
their progress. The random numbers are PyTorch's and Python's own, which `judge` seeds.
"""

import ast
import copy
import datetime
import inspect
import json
import math
import random
import textwrap
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from mnist_gpu.checks import atomic_write
from mnist_gpu.device import memory_error

UNANSWERED, RIGHT, WRONG, UNDECIDED = "not answered yet", "right", "wrong", "nothing can be claimed"
WRITE, PREDICT, MEND = "write", "predict", "mend"  # the kinds: a function, a number or an order, a wrong program
TODO = {MEND: "Mend it, then delete the line with the ..."}  # what a reader is to do with a stub
PROGRESS = Path("my_exercises.json")
FOLDERS = (Path(), Path("notebooks"))  # where it may be: a kernel runs beside the notebooks, a terminal one above


class Wrong(Exception):
    """The answer is wrong. The text says how; `draw`, if given, shows it."""

    def __init__(self, text: str, draw: Callable[[], object] | None = None):
        super().__init__(text)
        self.draw = draw


class Undecided(Exception):
    """Nothing can be claimed about the answer on this machine now. The text says why."""


class Verdict(NamedTuple):
    status: str  # UNANSWERED, RIGHT, WRONG or UNDECIDED
    text: str
    draw: Callable[[], object] | None = None


@dataclass(frozen=True)
class Exercise:
    """`check` gets the answer. It returns a sentence on what was tried, or raises Wrong or Undecided."""

    name: str  # "03.2"
    kind: str  # WRITE, PREDICT or MEND
    title: str
    check: Callable[[object], str]


def compared(
    right: Callable, inputs: Callable[[], Iterable[tuple]], *, given: Callable[..., str],
    hints: Sequence[tuple[Callable, str]] = (), why: Callable[..., str | None] = lambda *_: None,
    run: Callable = lambda answer, *arguments: answer(*arguments),
    then: Callable[[Callable], str] | None = None, draw: Callable | None = None,
) -> Callable[[object], str]:  # fmt: skip
    """A check that gives the answer and a reference the same input.

    Args:
        right: the reference; gets what the answer gets.
        inputs: makes the input: a tuple of arguments each time.
        given: says in words what an input is; gets its arguments.
        hints: (another reference, hint). The first one that gives what the answer gives says what is wrong.
        why: gets the arguments and what was found, and says what is wrong where no hint fits, or None.
        run: calls the answer, where that takes more than a call, and returns what is compared.
        then: asked of a right answer, and returns what is said of it: a measurement, say.
        draw: shows a wrong answer; gets the arguments and what was found.
    """

    def hint(arguments: tuple, found: object, expected: object) -> str:
        for instead, text in hints:
            other = instead(*copy.deepcopy(arguments))
            if same(found, other) and not same(other, expected):
                return text
        return why(*arguments, found) or ""

    def check(answer: object) -> str:
        every = list(inputs())
        for arguments in every:
            found, expected = run(answer, *copy.deepcopy(arguments)), right(*copy.deepcopy(arguments))
            if not same(found, expected):
                said = f"{given(*arguments)}: {difference(found, expected)}."
                picture = partial(draw, *arguments, found) if draw else None
                raise Wrong(f"{said} {hint(arguments, found, expected)}".rstrip(), picture)
        return then(answer) if then else f"Tried on {count_of(len(every), 'input')}."

    return check


def same(found: object, expected: object) -> bool:
    """Whether two values are equal: tensors in shape and kind and, with other floats, but for rounding."""
    if isinstance(expected, torch.Tensor):
        if not isinstance(found, torch.Tensor) or found.shape != expected.shape:
            return False
        if not expected.is_floating_point():
            return bool((found == expected).all())
        loose = 1e-9 if found.dtype == expected.dtype == torch.float64 else 1e-4
        return torch.allclose(found.double(), expected.double(), rtol=loose, atol=loose / 100)
    if isinstance(expected, dict):
        alike = isinstance(found, dict) and found.keys() == expected.keys()
        return alike and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        alike = isinstance(found, list | tuple) and len(found) == len(expected)
        return alike and all(map(same, found, expected))
    if isinstance(expected, float) and isinstance(found, int | float) and not isinstance(found, bool):
        return math.isclose(found, expected, rel_tol=1e-6)
    return type(found) is type(expected) and found == expected


def difference(found: object, expected: object) -> str:
    """What was given and what should have been; of large tensors of one shape, the element that is furthest off."""
    if isinstance(found, torch.Tensor) and found.shape == expected.shape and found.numel() > 8:
        at = int((found.double() - expected.double()).abs().argmax())
        values = (shown(tensor.flatten()[at].item()) for tensor in (found, expected))
        return "element {} is {}, but should be {}".format(at, *values)
    return f"it gives {shown(found)}, but should give {shown(expected)}"


def shown(value: object) -> str:
    """A value in a few words: "3.21", "[4, 10] float32"."""
    if isinstance(value, torch.Tensor) and value.numel() > 8:
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, torch.Tensor):
        return shown(value.tolist())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(shown, value)) + ")"
    return repr(value)


def count_of(number: int, noun: str) -> str:
    """ "1 image", "2 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def unanswered(answer: object) -> bool:
    """Whether there is still a `...` of the stub in an answer: a value, or a function or class, by its source."""
    if isinstance(answer, dict):
        return any(map(unanswered, answer.values()))
    if isinstance(answer, list | tuple):
        return any(map(unanswered, answer))
    if answer is ...:
        return True
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(answer, "fn", answer))))  # fn: of a Triton kernel
    except (TypeError, OSError, SyntaxError):  # a number, say; or a function whose source is not known
        return False
    # x[..., None] and tuple[int, ...] are Python's own use of it.
    inside = {id(n) for s in ast.walk(tree) if isinstance(s, ast.Subscript) for n in ast.walk(s.slice)}
    dots = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and n.value is ...)
    return any(id(node) not in inside for node in dots)


def judge(exercise: Exercise, answer: object, seed: int = 0) -> Verdict:
    """What is to be said of `answer`. `seed` is of the random input that is tried.

    The random states and the number of threads are left as they were.
    """
    name = exercise.name
    if unanswered(answer):
        return Verdict(UNANSWERED, f"{name}: {UNANSWERED}. {TODO.get(exercise.kind, 'Replace every ... by code.')}")
    threads, state = torch.get_num_threads(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs' generators, too
            random.seed(seed)
            return Verdict(RIGHT, f"{name}: right. {exercise.check(answer)}")
    except Wrong as wrong:
        return Verdict(WRONG, f"{name}: wrong. {wrong}", wrong.draw)
    except Undecided as undecided:
        return Verdict(UNDECIDED, f"{name}: {undecided}")
    except Exception as error:
        if memory_error(error):  # which may be the machine's fault, and says what to do
            raise
        return Verdict(WRONG, f"{name}: wrong. {_stopped(error, answer)}")
    finally:
        torch.set_num_threads(threads)
        random.setstate(state)


def _stopped(error: Exception, answer: object) -> str:
    """An error that stopped the answer, with its line there; or the check, which could not use what it was given."""
    text = f"{type(error).__name__}: {error}"
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    if lines := [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]:
        return f"It stops in line {lines[-1]} of its cell with {text}"
    return f"What it gives cannot be used: {text}"


def checker(exercises: Sequence[Exercise]) -> Callable:
    """The `check` of a chapter with these exercises."""
    known = {e.name: e for e in exercises}

    def check(name: str, answer: object, *, solution: bool = False) -> None:
        """Prints what is to be said of an answer, and draws what shows it better. `solution`: the notebook's own.

        Right answers of readers who keep their progress are noted. Raises ValueError for an exercise that is not here.
        """
        if name not in known:
            raise ValueError(f"there is no exercise {name!r} here; there are: {', '.join(known)}")
        status, text, draw = judge(known[name], answer)
        print(text if not solution else text.replace(":", ", the solution:", 1))
        if draw:
            draw()
        if status == RIGHT and not solution and (path := kept()):
            try:
                keep({name: datetime.date.today().isoformat()} | read_progress(path), path)
            except (ValueError, OSError) as error:
                print(f"(Your progress is not kept: {error})")

    return check


def read_progress(path: Path) -> dict[str, str]:
    """The days on which exercises were answered, by name. Raises ValueError for a file that holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): datetime.date.fromisoformat(day).isoformat() for name, day in found["answered"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a file of this course's progress; delete it to begin anew ({error})") from None


def kept() -> Path | None:
    """The file with the reader's progress, if they keep it."""
    return next((folder / PROGRESS for folder in FOLDERS if (folder / PROGRESS).exists()), None)


def keep(answered: dict[str, str], path: Path) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps({"answered": dict(sorted(answered.items()))}, indent=1) + "\n").encode())


def listing(exercises: Sequence[Exercise], begin_to_keep: bool = False) -> None:
    """Prints the exercises, and which of them were answered where the reader keeps that.

    The file is beside the notebooks: in notebooks/, or in this folder, if there is no notebooks/ in it.
    """
    path = kept()
    if begin_to_keep and not path:
        path = (FOLDERS[1] if FOLDERS[1].is_dir() else FOLDERS[0]) / PROGRESS
        keep({}, path)
    answered = read_progress(path) if path else {}
    width = max(len(e.title) for e in exercises)
    for e in exercises:
        print(f"{e.name}  {e.kind:7s}  {e.title:{width}s}  {answered.get(e.name, '')}".rstrip())
    if path:
        print(f"{len({e.name for e in exercises} & answered.keys())} of {len(exercises)} answered, kept in {path}.")
    else:
        print(f"{len(exercises)} exercises. To keep which of them you have answered: --keep.")
