"""Chapter 08, Inside the GPU: what it is made of, what it waits for, and what fills its memory."""

# ruff: noqa: F401 - what the notebook uses
from mnist_gpu.chapters.chapter_08.cards import inside, memories
from mnist_gpu.chapters.chapter_08.exercises import EXERCISES, check
from mnist_gpu.chapters.chapter_08.memory import LiveBytes, accumulate, cost_of_gradient, costs, counted, live_bytes
from mnist_gpu.chapters.chapter_08.streams import copies_and_steps
from mnist_gpu.chapters.chapter_08.sweeps import by_size, curve, intensities, timed
from mnist_gpu.measuring.drawing import PREDICTED, Series, columns, lines
from mnist_gpu.measuring.prediction import (
    REGIMES,
    SHEET,
    WARP,
    Limits,
    binding,
    insides,
    measured_limits,
    named,
    sources,
    step_operations,
)
from mnist_gpu.measuring.timing import alternate, compare_all
from mnist_gpu.measuring.workloads import two_ceilings
