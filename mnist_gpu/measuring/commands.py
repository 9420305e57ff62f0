"""Programs that a chapter starts: what they print, and, where one fails, why."""

import re
import shlex
import subprocess
from collections.abc import Sequence

from mnist_gpu.measuring.neighbours import watching

LINES = 15  # of standard error that are shown
# Where torchrun's own report of a failed worker begins: forty lines, after those in which the worker gave the reason.
REPORT = re.compile(r"^[EW]\d{4} .*torch/distributed/elastic/", re.MULTILINE)


def why(errors: str) -> str:
    """The end of what a program wrote to standard error, where its reason stands."""
    reason = REPORT.split(errors, maxsplit=1)[0].strip() or errors.strip()
    return "\n".join(reason.splitlines()[-LINES:]) or "(it said nothing)"


def run_command(command: Sequence, **options) -> str:
    """What `command` prints. `options` are those of subprocess.run.

    Raises RuntimeError if it fails, with its status and the end of its standard error.
    """
    command = [*map(str, command)]
    with watching():
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with status {done.returncode}:\n{why(done.stderr)}")
    return done.stdout
