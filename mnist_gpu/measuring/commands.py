"""Programs that a chapter starts: what they print, and, where one fails, why."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mnist_gpu.measuring.busy import watching


def own_environment() -> dict[str, str]:
    """For a program that finds this very package, and prints in UTF-8 whatever the system's code page is."""
    path = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}


def run_command(command: Sequence, **options) -> str:
    """What `command` prints. Raises RuntimeError with its status and its standard error if it fails."""
    command = [*map(str, command)]
    with watching():
        heard = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
        done = subprocess.run(command, env=own_environment(), check=False, **heard, **options)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with status {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout
