"""What all exercises share: the verdict on an answer, the hint that fits it, and the reader's progress."""

import random
import time

import numpy as np
import pytest
import torch

from mnist_gpu.measuring.exercises import RIGHT, UNDECIDED, WRITE, WRONG, Exercise, Undecided, Wrong

from mnist_gpu.measuring.exercises import checker, compared, in_time, judge, same, unanswered  # isort: skip


def about(check):
    return Exercise("00.1", WRITE, "a test", check)


DOUBLED = about(
    compared(
        right=lambda x: 2 * x,
        inputs=lambda: ((torch.rand(n),) for n in (3, 1, random.randrange(5, 9))),
        given=lambda x: f"For {len(x)} numbers",
        hints=((lambda x: x * x, "That is the square."), (lambda x: x + 1, "That is one more.")),
        why=lambda x, found: "It has another length." if len(found) != len(x) else None,
    )
)


def test_an_answer_is_compared_with_the_reference_and_the_hint_fits_it():
    assert "3 inputs" in judge(DOUBLED, lambda x: x + x).text
    wrong = {"square": lambda x: x**2, "one more": lambda x: x + 1, "another length": lambda x: x[1:]}
    for hint, answer in wrong.items():
        found = judge(DOUBLED, answer)
        assert found.status == WRONG and "For 3 numbers" in found.text and hint in found.text
    # One that changes its input does not change the reference's.
    assert judge(DOUBLED, lambda x: x.mul_(2)).status == RIGHT and judge(DOUBLED, lambda x: x.mul_(3)).status == WRONG


def test_a_hint_that_a_right_answer_would_get_as_well_is_not_given():
    squares = ((lambda x: x * x, "That is the square."),)
    ones = compared(right=lambda x: x, inputs=lambda: [(1,), (2,)], given=str, hints=squares)
    found = judge(about(ones), lambda x: 1)
    assert found.status == WRONG and "square" not in found.text


@pytest.mark.parametrize(
    ("found", "expected", "equal"),
    [
        (2, 2, True), (3, 2, False), (True, 1, False), (1, True, False), (2, 2.0, True), (0.1 + 0.2, 0.3, True),
        (1.01, 1.0, False), (2.0, 2, True), (np.int64(2), 2, True), (np.ceil(1.5), 2, True), (2.1, 2, False),
        (np.True_, True, True), ([np.int64(2)], [2], True), (np.array([1, 2]), [1, 2], True),
        (None, 0, False), (0, None, False),
        ([1, 2], (1, 2), True), ([1], [1, 2], False), ({"a": 1}, {"a": 1}, True), ({"a": 1}, {"b": 1}, False),
        (torch.ones(2), torch.ones(3), False), (torch.ones(2), torch.ones(2).double(), True),
        (1.0, torch.ones(1), False),
        (torch.tensor([1, 2]), torch.tensor([1, 2]), True), (torch.tensor([1, 2]), torch.tensor([1, 3]), False),
        (torch.full((2,), torch.nan), torch.ones(2), False),
    ],
)  # fmt: skip
def test_values_are_equal_but_for_rounding(found, expected, equal):
    assert same(found, expected) == equal


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


def test_an_answer_that_does_not_end_is_ended_and_its_input_named():
    ended = []

    def searching(x):
        try:
            while x:
                x += 1
        finally:
            ended.append(x)

    limit = compared(
        right=lambda x: None, inputs=lambda: [(0,), (7,)], given=lambda x: f"For {x}",
        run=lambda *given: in_time(*given, seconds=0.2),
    )  # fmt: skip
    found = judge(about(limit), searching)
    assert found.status == WRONG and "For 7: it had not ended after 0.2 seconds." in found.text
    end = time.monotonic() + 10
    while len(ended) < 2 and time.monotonic() < end:  # its thread ends as well, and leaves the CPU alone
        time.sleep(0.01)
    assert len(ended) == 2
    assert in_time(lambda a, b: a + b, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        in_time(lambda: 1 / 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError])
def test_an_interrupt_is_no_verdict_nor_is_memory_that_ran_out(error):
    def stopped(answer):
        raise error

    with pytest.raises(error):
        judge(about(stopped), 1)


# The reader's progress


def answered(answer):
    """Right, wrong or undecided, by the answer."""
    if answer == 1:
        return "so"
    raise Wrong("no") if answer else Undecided("open")


def test_a_check_prints_its_verdict_and_names_an_exercise_that_is_not_there(capsys):
    check = checker([Exercise("03.8", WRITE, "a test", answered)])
    for answer, said in ((1, "right. so"), (2, "wrong. no"), (0, "open"), (..., "not answered yet")):
        check("03.8", answer)
        assert said in capsys.readouterr().out
    check("03.8", 1, solution=True)
    assert "the solution: right" in capsys.readouterr().out and judge(about(answered), 0).status == UNDECIDED
    with pytest.raises(ValueError, match=r"'03.9'.*03.8"):
        check("03.9", 1)
