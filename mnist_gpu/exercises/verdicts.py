"""An exercise, and what may be said of an answer to it: right, wrong with the hint that fits, undecided, not answered.

A check is a function of the answer, under `@exercise`. It returns a sentence about what it has tried if the answer is
right, and raises Wrong or Undecided otherwise. What it tries is random, odd sizes and edge cases among it; the random
numbers are PyTorch's and Python's own, which `judge` seeds.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

UNANSWERED, RIGHT, WRONG, UNDECIDED = "not answered yet", "right", "wrong", "nothing can be claimed"
WRITE, PREDICT, MEND = "write", "predict", "mend"  # the kinds: a function, a number or an order, a wrong program


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
    name: str  # "03.2"
    kind: str  # WRITE, PREDICT or MEND
    title: str
    check: Callable[[object], str]


EXERCISES: dict[str, Exercise] = {}  # by name; a chapter's file adds its own when it is imported


def exercise(name: str, kind: str, title: str) -> Callable:
    """Makes a function the check of the exercise called `name`."""

    def add(check: Callable) -> Callable:
        EXERCISES[name] = Exercise(name, kind, title, check)
        return check

    return add


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


def count_of(number: int, noun: str) -> str:
    """ "1 image", "2 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def sentence(found: object) -> str:
    """A comparison as a sentence, which begins with a capital."""
    text = str(found)
    return text[0].upper() + text[1:]
