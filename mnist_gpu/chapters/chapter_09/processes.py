"""Another process, which runs Triton's kernels as it is told, interpreted or compiled, whatever this one does."""

import contextlib
import inspect
import itertools
import linecache
import multiprocessing
import os
import pickle
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from types import ModuleType

from mnist_gpu.faster.with_triton import environment

HEAD = "import triton\nimport triton.language as tl\n\n\n@triton.jit\n"  # what a kernel may rely on in another process
NUMBERS = itertools.count()


@contextlib.contextmanager
def process(*, interpret: bool, **variables: str) -> Iterator[Callable]:
    """Starts a process, gives what calls a function there, and ends it. `variables`: of its environment.

    Triton reads the environment when it is imported, so the process has to start with it. A call raises what the
    function raises, and BrokenProcessPool, a RuntimeError, where the process ends instead.
    """

    def call(function: Callable, *arguments):
        # As bytes: PyTorch would pass tensors on through shared memory, of which a container may have next to none.
        return pickle.loads(pool.submit(_called, pickle.dumps((function, arguments))).result())

    before, program = dict(os.environ), sys.modules["__main__"]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        os.environ.update(environment(interpret=interpret) | variables)
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


def source_of(kernel) -> str:
    """A kernel for another process, which cannot be given the kernel itself."""
    source = textwrap.dedent(inspect.getsource(kernel.fn))
    return HEAD + source[re.search(r"^def ", source, re.MULTILINE).start() :]


def kernel_from(source: str):
    """The kernel that a source ends with. Triton reads the source again, so it is kept where Python keeps a cell's."""
    file = f"<kernel {next(NUMBERS)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    defined = {"__name__": file}
    exec(compile(source, file, "exec"), defined)
    return [*defined.values()][-1]
