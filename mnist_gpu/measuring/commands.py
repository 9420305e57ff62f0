"""Programs that a chapter starts: what they print, and, where one fails, why."""

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mnist_gpu.measuring.busy import watching

TEXT = {"encoding": "utf-8", "errors": "replace"}  # what programs say, and subprocess is to read
# Where torchrun's own report of a failed worker begins: forty lines, after those in which the worker gave the reason.
REPORT = re.compile(r"^[EW]\d{4} .*torch/distributed/elastic/", re.MULTILINE)


def own_environment() -> dict[str, str]:
    """For a program that finds this very package, and prints in UTF-8 whatever the system's code page is."""
    path = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}


def why(errors: str) -> str:
    """The last 15 lines that a program wrote to standard error, where its reason stands."""
    reason = REPORT.split(errors, maxsplit=1)[0].strip() or errors.strip()
    return "\n".join(reason.splitlines()[-15:]) or "(it said nothing)"


def run_command(command: Sequence, **options) -> str:
    """What `command` prints. Raises RuntimeError with its status and the end of its standard error if it fails."""
    command = [*map(str, command)]
    with watching():
        done = subprocess.run(command, env=own_environment(), capture_output=True, check=False, **TEXT, **options)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with status {done.returncode}:\n{why(done.stderr)}")
    return done.stdout
