"""Compiles simulated.cpp, once for every version of it and of PyTorch."""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("simulated.cpp")
COMPILER = os.environ.get("CXX", "g++")


def library() -> Path:
    """The compiled library, in the user's cache; made if it is not there, which takes 15 seconds of a processor.

    It is written beside its place and then renamed, so that of several processes none loads half a file.
    """
    home = Path(torch.__file__).parent
    command = [COMPILER, "-std=c++20", "-O0", "-w", "-fPIC", "-shared", "-isystem", str(home / "include"), str(SOURCE)]
    command += [f"-L{home / 'lib'}", "-ltorch_cpu", "-lc10"]
    version = hashlib.sha256("\0".join([*command, torch.__version__, SOURCE.read_text(encoding="utf-8")]).encode())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnist_gpu"
    path = cache / f"simulated_accelerator-{version.hexdigest()[:16]}.so"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / path.name
        subprocess.run([*command, "-o", str(made)], check=True)
        os.replace(made, path)
    return path
