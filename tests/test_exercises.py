"""The exercises: stubs and solutions as they stand in the chapters, and wrong answers, each with the hint it gets.

Those of chapter 09 are kernels, which need a process of their own: see of_kernels/test_puzzles.py.
"""

import contextlib
import importlib
import io
import itertools
import json
import linecache
import os
import random
import re
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch

from mnist_gpu import __main__
from mnist_gpu.exercises import checking
from mnist_gpu.exercises.chapter_01 import COSTS, STARTING
from mnist_gpu.exercises.checking import judge
from mnist_gpu.exercises.verdicts import (
    EXERCISES,
    MEND,
    PREDICT,
    RIGHT,
    UNANSWERED,
    UNDECIDED,
    WRITE,
    WRONG,
    Undecided,
    Wrong,
    exercise,
    unanswered,
)

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
CELLS = {path.name[:2]: nbformat.read(path, 4).cells for path in NOTEBOOKS}
CHECK = re.compile(r'^check\("(?P<name>[\d.]+)", (?P<answer>\w+)(?P<solution>, solution=True)?\)$', re.M)
# What is measured, and stands in for the clock here: it makes the first of the sides the slowest, the last the fastest.
MEASURED = {"01.2": "chapter_01", "03.2": "chapter_03", "05.3": "chapter_05", "07.1": "chapter_07"}
NUMBERS = itertools.count()
SAID = "ZeroDivisionError: division by zero"


def tagged(tag):
    """The cells with a tag, of all chapters but 09, by the name of their exercise."""
    cells = [c.source for chapter, cells in CELLS.items() if chapter != "09" for c in cells if has(c, tag)]
    return {CHECK.search(source)["name"]: source for source in cells}


def has(cell, tag):
    return tag in cell.metadata.get("tags", [])


STUBS, SOLUTIONS = tagged("exercise"), tagged("solution")
HERE = {name: e for name, e in EXERCISES.items() if not name.startswith("09.")}
ANSWERS = [
    answer
    for chapter in sorted({name[:2] for name in HERE})
    for answer in importlib.import_module(f"wrong_answers.chapter_{chapter}").WRONG
]


@pytest.fixture(scope="module")
def first_cells():
    """What a chapter's first code cell defines, which has to be enough for its exercises."""
    found, environment = {}, dict(os.environ)

    def of(chapter):
        if chapter not in found:
            found[chapter] = {"__name__": "__main__"}
            first = next(c.source for c in CELLS[chapter] if c.cell_type == "code")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(first, found[chapter])
        return dict(found[chapter])

    yield of
    for defined in found.values():
        for value in defined.values():
            if isinstance(value, tempfile.TemporaryDirectory):  # chapter 07's; it would warn when Python ends
                value.cleanup()
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def verdict(first_cells, monkeypatch):
    """Runs a cell as JupyterLab would, and gives the verdict on its answer."""

    def of(source, seed=0):
        name, stand_ins = CHECK.search(source)["name"], {}
        if name in MEASURED:
            module = importlib.import_module(f"mnist_gpu.exercises.{MEASURED[name]}")
            monkeypatch.setattr(module, "alternate", in_order)
            monkeypatch.setattr(module, "usable_cpus", lambda: 2, raising=False)
            monkeypatch.setattr(os, "cpu_count", lambda: 2)  # where there is one, two threads run as well
            stand_ins = {"alternate": in_order, "usable_cpus": lambda: 2}  # for a solution that measures by itself
        namespace, found = first_cells(name[:2]) | stand_ins, []
        namespace["check"] = lambda name, answer, solution=False: found.append(judge(name, answer, seed))
        file = f"<cell {next(NUMBERS)}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec"), namespace)
        return found[0]

    return of


def in_order(sides, **options):
    """In place of `alternate`: every side is run, and the first is said to be the slowest, the last the fastest."""
    for function in sides.values():
        function()
    return {name: [1.0 / (i + 1)] * 10 for i, name in enumerate(sides)}


# What belongs together


def test_every_chapter_has_three_or_four_and_each_a_stub_a_hint_a_solution_and_wrong_answers():
    chapters = {name[:2] for name in EXERCISES}
    assert {chapter: [n for n in EXERCISES if n[:2] == chapter] for chapter in chapters} == {
        chapter: [f"{chapter}.{i}" for i in range(1, 1 + sum(n[:2] == chapter for n in EXERCISES))]
        for chapter in chapters
    }
    for chapter in chapters - {"09"}:
        assert 3 <= sum(name[:2] == chapter for name in HERE) <= 4
    assert list(STUBS) == list(SOLUTIONS) == sorted(HERE)
    for name in HERE:
        assert sum(a[0] == name for a in ANSWERS) >= 3, name
    assert {a[0] for a in ANSWERS} == HERE.keys()
    assert {e.kind for e in HERE.values()} == {WRITE, PREDICT, MEND}
    assert chapters == CELLS.keys()


@pytest.mark.parametrize("chapter", CELLS)
def test_exercises_stand_before_the_last_cell_each_with_its_kind_hint_stub_and_folded_solution(chapter):
    cells = CELLS[chapter]
    at = [i for i, c in enumerate(cells) if has(c, "exercise")]
    assert at[-1] == len(cells) - 3 and "## Key points" in cells[-1].source
    for i in at:
        before, stub, solution = cells[i - 1 : i + 2]
        name = CHECK.search(stub.source)["name"]
        assert CHECK.search(solution.source)["name"] == name and name[:2] == chapter
        assert CHECK.search(solution.source)["solution"] and not CHECK.search(stub.source)["solution"]
        assert CHECK.search(stub.source)["answer"] == CHECK.search(solution.source)["answer"]
        assert has(solution, "solution")
        assert solution.metadata["jupyter"] == {
            "outputs_hidden": True,
            "source_hidden": True,
        }  # it may give the answer away
        assert before.source.startswith(f"### Exercise {name} ({EXERCISES[name].kind}): ")
        assert re.search(r"<details><summary>Hint</summary>\n\n.+\n\n</details>", before.source, re.S)


@pytest.mark.parametrize("chapter", CELLS)
def test_what_is_stored_with_the_chapters_is_what_a_reader_will_see(chapter):
    for cell in CELLS[chapter]:
        if has(cell, "exercise"):
            assert "not answered yet" in cell.outputs[0].text
        if has(cell, "solution"):
            assert re.match(r"[\d.]+, the solution: (right\. |.*nothing can be claimed)", cell.outputs[0].text)


# Answers


@pytest.mark.parametrize("name", HERE)
def test_a_stub_is_not_answered_yet(name, verdict):
    assert verdict(STUBS[name]).status == UNANSWERED


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", HERE)
def test_the_solution_is_right(name, seed, verdict):
    found = verdict(SOLUTIONS[name], seed)
    assert found.status == RIGHT, found.text


@pytest.mark.parametrize(("name", "line", "instead", "hint"), ANSWERS)
def test_a_wrong_answer_gets_its_hint(name, line, instead, hint, verdict, monkeypatch):
    assert SOLUTIONS[name].count(line) == 1
    found = verdict(SOLUTIONS[name].replace(line, instead))
    assert found.status == WRONG and hint in found.text, found.text
    if found.draw:
        drawn = []
        monkeypatch.setattr(plt, "show", lambda: drawn.append(plt.gcf()))
        found.draw()
        assert drawn and drawn[0].axes[0].has_data()
        plt.close("all")


def test_a_faster_pipeline_is_compared_and_nothing_is_claimed_where_nothing_can_be(verdict, monkeypatch):
    assert "Yours is 40.0 times as fast as the textbook" in verdict(SOLUTIONS["03.2"]).text  # 20 of it in a round
    for seconds, expected in ((0.05, UNDECIDED), (0.01, WRONG)):
        monkeypatch.setattr(
            f"{__name__}.in_order",
            lambda sides, seconds=seconds, **_: {n: [seconds if n == "the textbook" else 1.0] * 10 for n in sides},
        )
        assert verdict(SOLUTIONS["03.2"]).status == expected


def test_an_order_is_measured_and_neither_equal_times_nor_mere_starts_are_held_against_it(verdict, monkeypatch):
    def measured(**others):
        """A microsecond a call for each of the five, if nothing else is said."""
        monkeypatch.setattr(
            "mnist_gpu.exercises.chapter_01.seconds_per_call",
            lambda device: {n: [1e-6 * others.get(n, 1)] * 12 for n in [*COSTS, STARTING]},
        )
        return verdict(SOLUTIONS["01.2"])

    assert measured().status == UNDECIDED
    assert measured(sum=2.9).status == UNDECIDED  # slower than the copy, both by their start alone
    assert measured(sum=20).status == WRONG
    assert measured(product=40).status == RIGHT
    found = measured(product=40, copy=20, sum=1.5)  # as on a fast GPU: the sum before the product of matrix and vector
    assert found.status == RIGHT and "The matrix times vector and the sum take little more than" in found.text


def timed_as(monkeypatch, seconds):
    """`alternate` in the checks: every side takes what `seconds` says of its name, in every round or in each of ten."""

    def stand_in(sides, **_):
        found = {name: seconds(name) for name in sides}
        return {name: s if isinstance(s, list) else [s] * 10 for name, s in found.items()}

    monkeypatch.setattr(f"{__name__}.in_order", stand_in)


def test_threads_that_do_not_pay_are_said_and_nothing_is_claimed_where_nothing_can_be(verdict, monkeypatch):
    def said(answer):
        found = verdict(f'answer = {answer!r}\ncheck("05.3", answer)')
        return found.status, found.text

    slow, fast = "2 threads at width 32", "2 threads at width 2048"
    timed_as(monkeypatch, lambda name: {slow: 2.0, fast: 0.5}.get(name, 1.0))  # a loss, twice nothing, a gain
    assert "At width 32 more threads do not pay" in said(32)[1]
    assert said(128)[0] == said(512)[0] == UNDECIDED and said(2048)[0] == RIGHT
    assert "At width 2048, below the answer" in said("never")[1]
    timed_as(monkeypatch, lambda name: 2.0 if name.startswith("2") else 1.0)
    assert said("never")[0] == RIGHT and said(2048)[0] == WRONG
    timed_as(monkeypatch, lambda name: 1.0)
    assert said("never")[0] == said(32)[0] == UNDECIDED
    timed_as(monkeypatch, lambda name: [1.0, 2.0] * 5 if name.startswith("2") else 0.5)
    assert said(32)[0] == UNDECIDED and "nothing can be claimed about 32" in said(32)[1]
    monkeypatch.setattr("mnist_gpu.exercises.chapter_05.usable_cpus", lambda: 1)
    assert judge("05.3", 32).status == UNDECIDED and "one usable CPU" in judge("05.3", 32).text


def test_a_rung_with_the_same_losses_is_right_however_fast_it_is(verdict, monkeypatch):
    for seconds, said in (
        (0.5, "Your rung is 2.00 times"),
        (1.0, "No difference shown"),
        (2.0, "The plain loop is 2.00"),
    ):
        timed_as(monkeypatch, lambda name, seconds=seconds: seconds if name == "your rung" else 1.0)
        found = verdict(SOLUTIONS["07.1"])
        assert found.status == RIGHT and said in found.text


# What all checks share


@pytest.fixture
def about(monkeypatch):
    """An exercise "00.1" with this check."""

    def make(check):
        monkeypatch.setitem(EXERCISES, "00.1", None)
        exercise("00.1", WRITE, "a test")(check)

    return make


def test_what_is_unanswered():
    def left():
        value = ...
        return value

    def pythons_own(x: tuple[int, ...]):
        return x[..., None]

    assert unanswered(...) and unanswered({"a": 1, "b": ...}) and unanswered((1, ...)) and unanswered(left)
    assert not any(map(unanswered, (0, None, "never", {"a": 1}, pythons_own, len, eval("lambda: ..."))))


def test_a_verdict_leaves_random_states_and_threads_as_they_were(about):
    def greedy(answer):
        torch.rand(3), random.random()
        torch.set_num_threads(2)
        return "so"

    about(greedy)
    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    assert judge("00.1", 1).text == "00.1: right. so"
    after = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_another_seed_tries_other_numbers_and_the_same_seed_the_same(about):
    about(lambda answer: f"{torch.rand(1).item()} {random.random()}")
    assert judge("00.1", 1, seed=1) == judge("00.1", 1, seed=1) != judge("00.1", 1, seed=2)


def test_an_answer_that_stops_is_wrong_and_its_line_is_named(about):
    def answer():
        x = 0
        return 1 / x

    about(lambda given: given())
    line = answer.__code__.co_firstlineno + 2
    assert judge(
        "00.1", answer
    ).text == f"00.1: wrong. It stops in line {line} of its cell with ZeroDivisionError: " + ("division by zero")
    about(lambda given: given + 1)
    assert "What it gives cannot be used: TypeError" in judge("00.1", "a").text


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError])
def test_an_interrupt_is_no_verdict_nor_is_memory_that_ran_out(error, about):
    def stopped(answer):
        raise error

    about(stopped)
    with pytest.raises(error):
        judge("00.1", 1)


def test_an_unknown_exercise_is_named():
    with pytest.raises(ValueError, match=r"there is no exercise '03.9'; there are: .*03.1, "):
        judge("03.9", 1)


# The reader's progress


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keeps(folder):
    return json.loads((folder / "my_exercises.json").read_text(encoding="utf-8"))["answered"]


def test_progress_is_kept_only_if_asked_and_counts_right_answers_of_the_reader(in_folder, about, capsys):
    about(lambda answer: "so" if answer == 1 else (_ for _ in ()).throw(Wrong("no") if answer else Undecided("open")))
    checking.check("00.1", 1)
    assert not list(in_folder.iterdir())
    assert __main__.main(["exercises", "--keep"]) == 0 and keeps(in_folder) == {}
    checking.check("00.1", 1, solution=True)
    checking.check("00.1", 2)
    checking.check("00.1", 0)
    checking.check("00.1", ...)
    assert keeps(in_folder) == {}
    checking.check("00.1", 1)
    checking.check("00.1", 2)
    assert keeps(in_folder).keys() == {"00.1"}
    capsys.readouterr()
    assert __main__.main(["exercises"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.match(r"00\.1  write    a test +\d{4}-\d\d-\d\d$", said[0])
    assert said[-1] == f"1 of {len(EXERCISES)} answered, kept in my_exercises.json."


def test_progress_is_kept_beside_the_notebooks(in_folder, about, capsys):
    about(lambda answer: "so")
    (in_folder / "notebooks").mkdir()
    assert __main__.main(["exercises"]) == 0
    assert f"{len(EXERCISES)} exercises. To keep which of them you have answered: --keep." in capsys.readouterr().out
    assert __main__.main(["exercises", "--keep"]) == __main__.main(["exercises", "--keep"]) == 0
    assert keeps(in_folder / "notebooks") == {}
    checking.check("00.1", 1)  # as in a notebook that runs one folder above, which hosted ones do
    assert keeps(in_folder / "notebooks").keys() == {"00.1"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"answered": {"03.1": "yesterday"}}', '{"answered": []}'])
def test_a_file_that_is_no_progress_is_named_and_left_alone(text, in_folder, about, capsys):
    about(lambda answer: "so")
    (in_folder / "my_exercises.json").write_text(text, encoding="utf-8")
    checking.check("00.1", 1)
    said = capsys.readouterr().out
    assert (
        "00.1: right. so" in said and "Your progress is not kept" in said and "my_exercises.json is not a file" in said
    )
    assert (in_folder / "my_exercises.json").read_text(encoding="utf-8") == text
    assert __main__.main(["exercises"]) == 2


def test_progress_that_cannot_be_written_stops_nothing(in_folder, about, capsys, monkeypatch):
    about(lambda answer: "so")
    __main__.main(["exercises", "--keep"])

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(checking, "atomic_write", refuse)
    checking.check("00.1", 1)
    assert "Your progress is not kept: [Errno 30] Read-only file system" in capsys.readouterr().out
