"""Programs that a chapter starts: what they print, and, where one fails, why."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from mnist_gpu.measuring.busy import watching

TEXT = {"encoding": "utf-8", "errors": "replace"}  # what programs say, and subprocess is to read
LINES = 15  # of standard error that are shown
# Where torchrun's own report of a failed worker begins: forty lines, after those in which the worker gave the reason.
REPORT = re.compile(r"^[EW]\d{4} .*torch/distributed/elastic/", re.MULTILINE)


def own_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`environment` for a program that finds this very package, wherever it is started.

    What it prints, and what it starts prints, is in UTF-8, whatever the system's code page.
    """
    path = [str(Path(__file__).resolve().parents[2]), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(path), "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}


def why(errors: str) -> str:
    """The end of what a program wrote to standard error, where its reason stands."""
    reason = REPORT.split(errors, maxsplit=1)[0].strip() or errors.strip()
    return "\n".join(reason.splitlines()[-LINES:]) or "(it said nothing)"


def run_command(command: Sequence, env: Mapping[str, str] = os.environ, **options) -> str:
    """What `command` prints. `env` and `options` are those of subprocess.run.

    Raises RuntimeError if it fails, with its status and the end of its standard error.
    """
    command = [*map(str, command)]
    with watching():
        done = subprocess.run(command, env=own_environment(env), capture_output=True, check=False, **TEXT, **options)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with status {done.returncode}:\n{why(done.stderr)}")
    return done.stdout


def torchrun(processes: int, *arguments, restarts: int = 0) -> list[str]:
    """What the command `torchrun --standalone --nproc-per-node PROCESSES ARGUMENTS` starts, for run_command."""
    options = ["--standalone", "--nproc-per-node", processes, "--max-restarts", restarts]
    return [sys.executable, "-m", "torch.distributed.run", *map(str, (*options, *arguments))]


def for_torchrun() -> None:
    """Sets what the processes that a notebook starts find in their environment."""
    os.environ["OMP_NUM_THREADS"] = "1"  # one thread per process; torchrun would set it and say so
    os.environ["USE_LIBUV"] = "0" if sys.platform == "win32" else "1"  # which PyTorch for Windows is built without
    os.environ["TQDM_DISABLE"] = "1"  # no progress bars among the output of the processes


def train_with_two_workers(checkpoint: Path, *, kill: bool) -> None:
    """Trains three epochs with two processes, a checkpoint each, one restart allowed; prints how it began and ended.

    With `kill` one of the two is killed as soon as the first checkpoint is there. Raises RuntimeError if it fails.
    """
    options = ["--device", "cpu", "--epochs", "3", "--batch-size", "512", "--every-epoch"]
    options += ["--save", checkpoint.name, "--resume", checkpoint.name]
    command = torchrun(2, "-m", "mnist_gpu", "train", *options, restarts=1)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": own_environment(), **TEXT}
    process = subprocess.Popen(command, cwd=checkpoint.parent, **pipes)
    while kill and process.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    if kill and process.poll() is None:
        worker = psutil.Process(process.pid).children()[-1].pid
        os.kill(worker, signal.SIGKILL)
        print("(one worker killed)")
    said, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with status {process.returncode}:\n{why(errors)}")
    print("\n".join(line for line in said.splitlines() if line.startswith(("Resumed", "Finished", "Test"))))
