"""How nearly two correct programs agree, which the tests of equal training ask for.

Two float32 programs that add up in another order agree to about 1e-7 a step, until a ReLU's input lies within rounding
of zero and is let through by one of them alone. From there on single losses differ by up to 6e-3. When that happens
depends on processor, library and batch size, so no batch size and no number of steps is safe from it.
"""

from collections.abc import Sequence

from mnist_gpu.training import train

FLIP = 0.02  # nats: more than such a flip does to a loss, less than a mistake does
NEARLY, FIRST = 1e-5, 3  # what a flip does to the weights shows in later losses: the first ones agree all the same


def assert_same_losses(found: Sequence[float], expected: Sequence[float], tolerance: float = FLIP) -> None:
    """The losses of one training, in float32 by two programs."""
    assert len(found) == len(expected) > 0
    differences = [abs(float(a) - float(b)) for a, b in zip(found, expected, strict=True)]
    assert all(d <= NEARLY for d in differences[:FIRST]), differences[:FIRST]
    assert all(d <= tolerance for d in differences), max(differences)


def silent(*line) -> None:
    """In place of `print`, for a training's log."""


def losses_of(model, step, batches, epochs: int = 1) -> list[float]:
    """What every step of so many passes gives."""
    return [loss for epoch in train(model, step, batches, epochs=epochs, log=silent) for loss in epoch.losses]
