"""Another process: for what a library decides once, when it is imported, from the environment that it finds."""

import contextlib
import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from types import ModuleType


@contextlib.contextmanager
def process(environment: Mapping[str, str]) -> Iterator[Callable]:
    """Starts a process with this environment, and gives what calls a function there: `call(function, *arguments)`.

    A call raises what the function raises, or RuntimeError if the process ends instead.
    """

    def call(function: Callable, *arguments):
        # As bytes: PyTorch would pass tensors on through shared memory, of which a container may have next to none.
        return pickle.loads(pool.submit(_called, pickle.dumps((function, arguments))).result())

    before, program = dict(os.environ), sys.modules["__main__"]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        os.environ.clear()
        os.environ.update(environment)
        # It does not import this program, which after an interpreted kernel of a notebook would be a file of Triton's.
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            pool.submit(int)  # with its first call the process starts
        finally:
            os.environ.clear()
            os.environ.update(before)
            sys.modules["__main__"] = program
        yield call


def _called(asked: bytes) -> bytes:
    function, arguments = pickle.loads(asked)
    return pickle.dumps(function(*arguments))
