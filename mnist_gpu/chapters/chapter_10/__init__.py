"""Chapter 10, a kernel of your own: what its cells use. All of it can be imported where Triton is missing."""

# ruff: noqa: F401, I001 - the names are for the notebook
from mnist_gpu.chapters.chapter_10.exercises import EXERCISES, check
from mnist_gpu.chapters.chapter_10.compiled import assembly
from mnist_gpu.chapters.chapter_10.watched import touched, watch
from mnist_gpu.faster.with_triton import imported, interpreted, kernel_device
