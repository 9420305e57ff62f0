"""Exercises that check themselves: what an answer is given, what it should give, and the hint for a wrong one.

Most are `compared`: the answer and the reference get the same random input, with odd sizes and edge cases among it.
The random numbers are PyTorch's and Python's own, which `judge` seeds.
"""

import ast
import copy
import ctypes
import inspect
import math
import random
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from mnist_gpu.device import out_of_memory

UNANSWERED, RIGHT, WRONG, UNDECIDED = "not answered yet", "right", "wrong", "nothing can be claimed"
WRITE, PREDICT, MEND = "write", "predict", "mend"  # the kinds: a function, a number or an order, a wrong program
TODO = {MEND: "Mend it, then delete the line with the ..."}  # what a reader is to do with a stub


class Wrong(Exception):
    """The answer is wrong. The text says how."""


class Undecided(Exception):
    """Nothing can be claimed about the answer on this machine now. The text says why."""


class Verdict(NamedTuple):
    """What is said of an answer."""

    status: str  # UNANSWERED, RIGHT, WRONG or UNDECIDED
    text: str


class Exercise(NamedTuple):
    """`check` gets the answer. It returns a sentence on what was tried, or raises Wrong or Undecided."""

    name: str  # "03.2"
    kind: str  # WRITE, PREDICT or MEND
    title: str
    check: Callable[[object], str]


def in_time(answer: Callable, *arguments, seconds: float = 3.0) -> object:
    """Calls an answer that may never end: a `run` for `compared`. Raises TimeoutError if it takes longer.

    It runs in a thread of its own, in which an exception is raised then: that works on every system, and slows nothing.
    After three seconds it says for how long it goes on, if it has more.
    """
    found = {}

    def call() -> None:
        try:
            found["value"] = answer(*arguments)
        except BaseException as error:
            found["error"] = error

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    try:
        thread.join(min(seconds, 3.0))
        if thread.is_alive() and seconds > 3.0:
            print(f"(Trying it, for at most {seconds:g} seconds ...)")
            thread.join(seconds - 3.0)
    finally:  # also when the reader has interrupted the cell
        if stuck := thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    if stuck:
        raise TimeoutError(f"it had not ended after {seconds:g} seconds.")
    if "error" in found:
        raise found["error"]
    return found["value"]


def compared(
    right: Callable, inputs: Callable[[], Iterable[tuple]], *, given: Callable[..., str],
    hints: Sequence[tuple[Callable, str]] = (), why: Callable[..., str | None] = lambda *_: None,
    run: Callable = in_time,
) -> Callable[[object], str]:  # fmt: skip
    """A check that gives the answer and the reference `right` the same `inputs`, tuples of arguments.

    Of a wrong answer it says which arguments were `given`, and the first of the `hints` whose reference gives what the
    answer gives; where none does, `why`, which gets the arguments and what was found. `run` calls the answer where
    a call, in time, is not enough.
    """

    def check(answer: object) -> str:
        every = list(inputs())
        for arguments in every:
            expected = right(*copy.deepcopy(arguments))
            try:
                found = plain(run(answer, *copy.deepcopy(arguments)))
            except TimeoutError as late:
                raise Wrong(f"{given(*arguments)}: {late}") from None
            if same(found, expected):
                continue
            others = ((instead(*copy.deepcopy(arguments)), hint) for instead, hint in hints)
            fitting = (hint for other, hint in others if same(found, other) and not same(other, expected))
            said = next(fitting, None) or why(*arguments, found) or ""
            raise Wrong(f"{given(*arguments)}: {difference(found, expected)}. {said}".rstrip())
        return f"Tried on {count_of(len(every), 'input')}."

    return check


def plain(value: object) -> object:
    """Numbers and arrays of NumPy as Python's, and whole numbers as int, in lists, tuples and dicts as well."""
    if type(value) is dict:
        return {key: plain(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if hasattr(value, "tolist") and not isinstance(value, torch.Tensor):
        return plain(value.tolist())
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def same(found: object, expected: object) -> bool:
    """Whether two values are equal, but for rounding: tensors in shape, and numbers whatever their type."""
    found = plain(found)
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
    if bool in (type(found), type(expected)) or not isinstance(expected, int | float):
        return type(found) is type(expected) and found == expected
    if isinstance(expected, float) and isinstance(found, int | float):
        return math.isclose(found, expected, rel_tol=1e-6)
    return found == expected


def networks() -> Iterator[tuple[torch.Tensor, ...]]:
    """Random x, labels, w1, b1, w2, b2 of networks with one hidden layer, in float64."""
    for batch, pixels, hidden, classes in [*torch.randint(5, 14, (6, 4)).tolist(), (1, 5, 4, 3), (7, 3, 1, 2)]:
        shapes = (batch, pixels), (hidden, pixels), (hidden,), (classes, hidden), (classes,)
        x, *weights = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
        yield x, torch.randint(classes, (batch,)), *weights


def gradient(at: int, x, labels, w1, b1, w2, b2, *, activation=torch.relu, slope=None, times=lambda x: 1):
    """Of the mean loss by w1, b1, w2 or b2. `slope` has the derivative that the activation is said to have."""
    wanted = (w1, b1, w2, b2)[at].requires_grad_()
    z = x @ w1.T + b1
    through = (slope or activation)(z)
    h = through + (activation(z) - through).detach()  # the value is the activation's
    return torch.autograd.grad(F.cross_entropy(h @ w2.T + b2, labels) * times(x), wanted)[0]


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


def you_said(guess: object, measured: float, unit: str = "") -> None:
    """Prints a reader's guess beside what was measured; nothing where there is no guess (...)."""
    if isinstance(guess, int | float):
        print(f"You said {shown(guess)}{unit}; it was {shown(float(measured))}{unit}.")


def unanswered(answer: object) -> bool:
    """Whether there is still a `...` of the stub in an answer: a value, or a function or class, by its source."""
    if isinstance(answer, dict | list | tuple):
        return any(map(unanswered, answer.values() if isinstance(answer, dict) else answer))
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
    """What to say of `answer`, tried on random input of this `seed`. Random states and threads stay as they were."""
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
        return Verdict(WRONG, f"{name}: wrong. {wrong}")
    except Undecided as undecided:
        return Verdict(UNDECIDED, f"{name}: {undecided}")
    except Exception as error:
        if out_of_memory(error):  # which may be the machine's fault
            raise
        return Verdict(WRONG, f"{name}: wrong. {_stopped(error, answer)}")
    finally:
        torch.set_num_threads(threads)
        random.setstate(state)


def _stopped(error: Exception, answer: object) -> str:
    """An error in the answer, with its line; or in the check, which could not use what the answer gave."""
    if isinstance(error, TimeoutError):  # of in_time
        return str(error).capitalize()
    text = f"{type(error).__name__}: {error}"
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    if lines := [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]:
        return f"It stops in line {lines[-1]} of its cell with {text}"
    return f"What it gives cannot be used: {text}{'. Is there a return?' * ('NoneType' in text)}"


def checker(exercises: Sequence[Exercise]) -> Callable:
    """The `check` of a chapter with these exercises."""
    known = {e.name: e for e in exercises}

    def check(name: str, answer: object, *, solution: bool = False) -> None:
        """Prints the verdict on an answer. `solution`: the answer is the notebook's.

        Raises ValueError for an exercise that is not here.
        """
        if name not in known:
            raise ValueError(f"there is no exercise {name!r} here; there are: {', '.join(known)}")
        text = judge(known[name], answer).text
        print(text if not solution else text.replace(":", ", the solution:", 1))

    return check
