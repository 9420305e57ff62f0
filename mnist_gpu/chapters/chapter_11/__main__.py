"""`torchrun ... -m mnist_gpu.chapters.chapter_11 WIDTH ...`: rank 0 prints what all of them have measured."""

import sys

from mnist_gpu.chapters.chapter_11 import measure_scaling
from mnist_gpu.device import set_threads
from mnist_gpu.faster.distributed import join
from mnist_gpu.measuring.busy import watching

if __name__ == "__main__":
    set_threads(1)
    # To each rank the others are busy neighbours. Whether the machine is busy is said by the program that starts them.
    with watching(say=lambda busy: None), join("cpu") as joined:
        measured = measure_scaling(joined, [int(width) for width in sys.argv[1:]])
        if joined.first:
            print(measured)
