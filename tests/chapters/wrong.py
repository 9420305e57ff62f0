"""Wrong answers to the exercises: each a function of its own (or a value), with a part of the hint that it gets."""

from typing import NamedTuple


class WrongAnswer(NamedTuple):
    exercise: str
    hint: str
    answer: object


class WrongAnswers(list):
    """Of a chapter: `@wrong("03.1", "is missing")` adds a function, `wrong.value("01.3", "below", 32)` a value."""

    def __call__(self, exercise: str, hint: str):
        def add(function):
            self.append(WrongAnswer(exercise, hint, function))
            return function

        return add

    def value(self, exercise: str, hint: str, value: object) -> None:
        self.append(WrongAnswer(exercise, hint, value))
