"""What all exercises share: the verdict on an answer, the hint that fits it, and the reader's progress."""

import json
import random
import re

import pytest
import torch

from mnist_gpu import __main__
from mnist_gpu.benchmark import EXERCISES
from mnist_gpu.measuring import exercises as module
from mnist_gpu.measuring.exercises import (
    UNDECIDED,
    WRITE,
    WRONG,
    Exercise,
    Undecided,
    Wrong,
    checker,
    compared,
    judge,
    same,
    shown,
    unanswered,
)


def about(check):
    return Exercise("00.1", WRITE, "a test", check)


DOUBLED = about(
    compared(
        right=lambda x: 2 * x,
        inputs=lambda: ((torch.rand(n),) for n in (3, 1, random.randrange(5, 9))),
        given=lambda x: f"For {len(x)} numbers",
        hints=((lambda x: x * x, "That is the square."), (lambda x: x + 1, "That is one more.")),
        why=lambda x, found: "It has another length." if len(found) != len(x) else None,
        draw=lambda x, found: None,
    )
)


def test_an_answer_is_compared_with_the_reference_and_the_hint_fits_it():
    assert judge(DOUBLED, lambda x: x + x).text == "00.1: right. Tried on 3 inputs."
    for answer, hint in (
        (lambda x: x**2, "square"),
        (lambda x: x + 1, "one more"),
        (lambda x: x[1:], "another length"),
    ):
        found = judge(DOUBLED, answer)
        assert found.status == WRONG and "For 3 numbers" in found.text and hint in found.text and found.draw
    assert judge(DOUBLED, lambda x: 3 * x).status == WRONG


def test_an_answer_that_changes_its_input_does_not_change_the_references():
    assert judge(DOUBLED, lambda x: x.mul_(2)).text.endswith("3 inputs.")
    assert judge(DOUBLED, lambda x: x.mul_(3)).status == WRONG


def test_a_hint_that_another_right_answer_would_get_is_not_given():
    ones = compared(
        right=lambda x: x, inputs=lambda: [(1,), (2,)], given=str, hints=((lambda x: x * x, "That is the square."),)
    )
    found = judge(about(ones), lambda x: 1)
    assert found.status == WRONG and "square" not in found.text


@pytest.mark.parametrize(
    ("found", "expected", "equal"),
    [
        (2, 2, True), (2.0, 2, False), (True, 1, False), (2, 2.0, True), (0.1 + 0.2, 0.3, True), (None, 0, False),
        ([1, 2], (1, 2), True), ([1], [1, 2], False), ({"a": 1}, {"a": 1}, True), ({"a": 1}, {"b": 1}, False),
        (torch.ones(2), torch.ones(3), False), (torch.ones(2), torch.ones(2).double(), True),
        (1.0, torch.ones(1), False),
        (torch.tensor([1, 2]), torch.tensor([1, 2]), True), (torch.tensor([1, 2]), torch.tensor([1, 3]), False),
        (torch.full((2,), torch.nan), torch.ones(2), False),
    ],
)  # fmt: skip
def test_values_are_equal_but_for_rounding(found, expected, equal):
    assert same(found, expected) == equal


def test_values_are_shown_in_a_few_words():
    values = (3.14159, 12345, torch.rand(4, 10), torch.ones(2), None, (1, 2.5))
    assert [shown(v) for v in values] == ["3.142", "12,345", "[4, 10] float32", "(1, 1)", "None", "(1, 2.5)"]


def test_what_is_unanswered():
    def left():
        value = ...
        return value

    def pythons_own(x: tuple[int, ...]):
        return x[..., None]

    assert unanswered(...) and unanswered({"a": 1, "b": ...}) and unanswered((1, ...)) and unanswered(left)
    assert not any(map(unanswered, (0, None, "never", {"a": 1}, pythons_own, len, eval("lambda: ..."))))


def test_a_verdict_leaves_random_states_and_threads_as_they_were():
    def greedy(answer):
        torch.rand(3), random.random()
        torch.set_num_threads(2)
        return "so"

    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    assert judge(about(greedy), 1).text == "00.1: right. so"
    after = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_another_seed_tries_other_numbers_and_the_same_seed_the_same():
    drawn = about(lambda answer: f"{torch.rand(1).item()} {random.random()}")
    assert judge(drawn, 1, seed=1) == judge(drawn, 1, seed=1) != judge(drawn, 1, seed=2)


def test_an_answer_that_stops_is_wrong_and_its_line_is_named():
    def answer():
        x = 0
        return 1 / x

    line = answer.__code__.co_firstlineno + 2
    found = judge(about(lambda given: given()), answer)
    assert found.status == WRONG and f"line {line}" in found.text and "ZeroDivisionError" in found.text
    assert "TypeError" in judge(about(lambda given: given + 1), "a").text


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError])
def test_an_interrupt_is_no_verdict_nor_is_memory_that_ran_out(error):
    def stopped(answer):
        raise error

    with pytest.raises(error):
        judge(about(stopped), 1)


# The reader's progress


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keeps(folder):
    return json.loads((folder / "my_exercises.json").read_text(encoding="utf-8"))["answered"]


def answered(answer):
    """Right, wrong or undecided, by the answer."""
    if answer == 1:
        return "so"
    raise Wrong("no") if answer else Undecided("open")


def test_progress_is_kept_only_if_asked_and_counts_right_answers_of_the_reader(in_folder, capsys):
    check, (name, *_) = checker([about(answered)]), sorted(e.name for e in EXERCISES)
    check("00.1", 1)
    assert not list(in_folder.iterdir())
    assert __main__.main(["exercises", "--keep"]) == 0 and keeps(in_folder) == {}
    check("00.1", 1, solution=True)
    for answer in (2, 0, ...):
        check("00.1", answer)
    assert keeps(in_folder) == {} and judge(about(answered), 0).status == UNDECIDED
    for answer in (1, 2):
        check("00.1", answer)
    assert keeps(in_folder).keys() == {"00.1"}
    checker([Exercise(name, WRITE, "a real one", answered)])(name, 1)
    capsys.readouterr()
    assert __main__.main(["exercises"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.match(rf"{name} .*\d{{4}}-\d\d-\d\d$", said[0]) and said[-1].startswith(f"1 of {len(EXERCISES)} answered")
    with pytest.raises(ValueError, match=r"'03.9'.*00.1"):
        check("03.9", 1)


def test_progress_is_kept_beside_the_notebooks(in_folder, capsys):
    (in_folder / "notebooks").mkdir()
    assert __main__.main(["exercises"]) == 0 and "--keep" in capsys.readouterr().out
    assert __main__.main(["exercises", "--keep"]) == __main__.main(["exercises", "--keep"]) == 0
    assert keeps(in_folder / "notebooks") == {}
    checker([about(answered)])("00.1", 1)  # as in a notebook that runs one folder above, which hosted ones do
    assert keeps(in_folder / "notebooks").keys() == {"00.1"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"answered": {"03.1": "yesterday"}}', '{"answered": []}'])
def test_a_file_that_is_no_progress_is_named_and_left_alone(text, in_folder, capsys):
    (in_folder / "my_exercises.json").write_text(text, encoding="utf-8")
    checker([about(answered)])("00.1", 1)
    said = capsys.readouterr().out
    assert "00.1: right. so" in said and "my_exercises.json" in said
    assert (in_folder / "my_exercises.json").read_text(encoding="utf-8") == text
    assert __main__.main(["exercises"]) == 2


def test_progress_that_cannot_be_written_stops_nothing(in_folder, capsys, monkeypatch):
    __main__.main(["exercises", "--keep"])

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(module, "atomic_write", refuse)
    checker([about(answered)])("00.1", 1)
    assert "Read-only file system" in capsys.readouterr().out
