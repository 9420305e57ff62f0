"""Compiles simulated.cpp, once for every version of it and of PyTorch."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("simulated.cpp")
COMPILER = os.environ.get("CXX", "g++")


def library() -> Path:
    """The compiled library, in the user's cache; made if it is not there, which takes 15 seconds of a processor.

    It is written beside its place and then renamed, so that of several processes that start at once none loads half a
    file. Neither Python's headers nor PyTorch's builder are needed: the library speaks to PyTorch alone.

    Raises RuntimeError if it does not compile, with what the compiler said; FileNotFoundError without a compiler.
    """
    home = Path(torch.__file__).parent
    command = [COMPILER, "-std=c++20", "-O0", "-w", "-fPIC", "-shared", "-isystem", str(home / "include"), str(SOURCE)]
    command += [f"-L{home / 'lib'}", "-ltorch_cpu", "-lc10"]
    version = hashlib.sha256("\0".join([*command, torch.__version__, SOURCE.read_text(encoding="utf-8")]).encode())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnist_gpu"
    path = cache / f"simulated_accelerator-{version.hexdigest()[:16]}.so"
    if path.exists():
        return path
    if not shutil.which(COMPILER):
        raise FileNotFoundError(f"the simulated accelerator needs a C++ compiler, but {COMPILER} is not here")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / path.name
        found = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, check=False)
        if found.returncode:
            raise RuntimeError(f"{SOURCE} does not compile:\n{found.stderr}")
        os.replace(made, path)
    return path
