"""Checks a reader's answers: `check("03.2", answer)`. And lists all exercises: `python -m mnist_gpu exercises`."""

import datetime
import json
import random
import traceback
from pathlib import Path

import torch

from mnist_gpu.checks import atomic_write
from mnist_gpu.device import memory_error
from mnist_gpu.exercises import (  # noqa: F401 - to be imported is all: each adds its exercises
    chapter_01,
    chapter_02,
    chapter_03,
    chapter_04,
    chapter_05,
    chapter_06,
    chapter_07,
    chapter_08,
    chapter_10,
    puzzles,
)
from mnist_gpu.exercises.verdicts import (
    EXERCISES,
    MEND,
    RIGHT,
    UNANSWERED,
    UNDECIDED,
    WRONG,
    Undecided,
    Verdict,
    Wrong,
    unanswered,
)

PROGRESS = Path("my_exercises.json")
# Where it may be: a kernel runs beside the notebooks, a terminal one folder above.
FOLDERS = (Path(), Path("notebooks"))
REPLACE = "Replace every ... by code."
MENDED = "Mend it, then delete the line with the ..."


def judge(name: str, answer: object, seed: int = 0) -> Verdict:
    """What is to be said of `answer` to the exercise called `name`. `seed` is of the random input that is tried.

    The random states and the number of threads are left as they were. Raises ValueError for an exercise that there is
    none of.
    """
    if name not in EXERCISES:
        raise ValueError(f"there is no exercise {name!r}; there are: {', '.join(sorted(EXERCISES))}")
    if unanswered(answer):
        return Verdict(UNANSWERED, f"{name}: {UNANSWERED}. {MENDED if EXERCISES[name].kind == MEND else REPLACE}")
    threads, state = torch.get_num_threads(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs' generators, too
            random.seed(seed)
            return Verdict(RIGHT, f"{name}: right. {EXERCISES[name].check(answer)}")
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


def check(name: str, answer: object, *, solution: bool = False) -> None:
    """Prints what is to be said of an answer, and draws what shows it better. `solution`: it is the notebook's own.

    Where the reader keeps their progress (`python -m mnist_gpu exercises --keep`), their right answers are noted.
    """
    status, text, draw = judge(name, answer)
    print(text if not solution else text.replace(":", ", the solution:", 1))
    if draw:
        draw()
    if status == RIGHT and not solution and (path := _kept()):
        try:
            _keep({name: datetime.date.today().isoformat()} | read_progress(path), path)
        except (ValueError, OSError) as error:
            print(f"(Your progress is not kept: {error})")


def read_progress(path: Path) -> dict[str, str]:
    """The days on which exercises were answered, by name. Raises ValueError for a file that holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): datetime.date.fromisoformat(day).isoformat() for name, day in found["answered"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a file of this course's progress; delete it to begin anew ({error})") from None


def _kept() -> Path | None:
    """The file with the reader's progress, if they keep it."""
    return next((folder / PROGRESS for folder in FOLDERS if (folder / PROGRESS).exists()), None)


def _keep(answered: dict[str, str], path: Path) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps({"answered": dict(sorted(answered.items()))}, indent=1) + "\n").encode())


def run(keep: bool = False) -> int:
    """Prints every exercise, and which of them were answered where the reader keeps that. `keep` begins to keep it.

    The file is beside the notebooks: in notebooks/, or in this folder, if there is no notebooks/ in it.
    """
    path = _kept()
    if keep and not path:
        path = (FOLDERS[1] if FOLDERS[1].is_dir() else FOLDERS[0]) / PROGRESS
        _keep({}, path)
    answered = read_progress(path) if path else {}
    width = max(len(e.title) for e in EXERCISES.values())
    for name, e in sorted(EXERCISES.items()):
        print(f"{name}  {e.kind:7s}  {e.title:{width}s}  {answered.get(name, '')}".rstrip())
    if path:
        print(f"{len(EXERCISES.keys() & answered)} of {len(EXERCISES)} answered, kept in {path}.")
    else:
        print(f"{len(EXERCISES)} exercises. To keep which of them you have answered: --keep.")
    return 0
