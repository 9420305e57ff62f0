"""MNIST on CPUs and GPUs, measured: the helper package of the course.

Import what you need from its modules, for example `from mnist_gpu.training import train`.
"""

__version__ = "0.1.0"
