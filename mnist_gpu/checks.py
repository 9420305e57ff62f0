"""Errors that name the value, what is allowed and what to do."""

import math


def at_least_one(**values: int) -> None:
    """Raises ValueError unless every value is a whole number of 1 or more: `at_least_one(batch_size=128)`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}, but must be a whole number of at least 1")


def positive(**values: float) -> None:
    """Raises ValueError unless every value is a finite number above 0: `positive(lr=0.01)`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{name} is {value!r}, but must be a number greater than 0")
