"""Sets the course up in .venv, with the build of PyTorch that fits this computer: `python -m mnist_gpu.install`.

PyPI has one build of PyTorch for each system: on Linux one for NVIDIA's newer cards, several GB even where there is no
card; on Windows one without any GPU. The others are in PyTorch's own index, and uv finds out which of them fits. Where
that index cannot be reached, pip installs PyPI's build. This file needs nothing but Python.
"""

import ast
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
TEXT = {"encoding": "utf-8", "errors": "replace"}  # what programs say
SECONDS = 120  # that uv may look for a build before it is given up

# What pip's settings are called by uv, which reads none of them.
UV_NAMES = {
    "index-url": ["UV_DEFAULT_INDEX"],
    "extra-index-url": ["UV_INDEX"],
    "find-links": ["UV_FIND_LINKS"],
    "constraint": ["UV_CONSTRAINT"],
    "trusted-host": ["UV_INSECURE_HOST"],
    "cert": ["SSL_CERT_FILE"],
    "proxy": ["HTTP_PROXY", "HTTPS_PROXY"],
}


def unsupported():
    """Why the course cannot run on this computer with this Python, and what to do, or None."""
    if sys.version_info < OLDEST_PYTHON:
        here = platform.python_version()
        return f"Python 3.11 or newer is needed, but this is {here}. Name another: make PYTHON=python3.12 ..."
    if (platform.system(), platform.machine()) == ("Darwin", "x86_64"):
        asked = ["sysctl", "-n", "sysctl.proc_translated"]  # 1 where an Apple-silicon Mac runs a Python for Intel's
        if subprocess.run(asked, capture_output=True, check=False, **TEXT).stdout.strip() == "1":
            return "This Python is for Intel's Macs, and PyTorch has no build for them: use one for Apple silicon."
        return (
            "PyTorch's last build for Intel's Macs is 2.2, and the course needs 2.11: use a hosted notebook, "
            'as the README says under "Hosted notebooks".'
        )
    return None


def backend() -> str:
    """The build to ask uv for: the one it chooses, or, for a card that only CUDA 12.6's have code for, that.

    uv looks at the driver and not at the card. PyTorch's builds for CUDA 13 hold no code below compute capability 7.5,
    and those for CUDA 12.6 none from 10.0 on.
    """
    try:
        command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, timeout=20, check=True, **TEXT).stdout
        cards = [float(line) for line in said.split()]
    except (OSError, subprocess.SubprocessError, ValueError):  # no card, no driver, or one too old to say
        return "auto"
    return "cu126" if cards and min(cards) < 7.5 and max(cards) < 10 else "auto"


def for_uv(settings: str) -> dict:
    """What `pip config list` says, as the environment variables that tell uv the same.

    pip's own order holds: a variable of the environment goes before what a file says for `pip install`, and that before
    what it says for all of pip.
    """
    # As pip does, the newest of all indexes, not of the first one that has the package.
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    sections = {"global": 0, "install": 1, ":env:": 2}
    lines = [line.partition("=")[::2] for line in settings.splitlines() if "=" in line]
    keys = [(*key.rpartition(".")[::2], value) for key, value in lines]
    for _, name, value in sorted((k for k in keys if k[0] in sections), key=lambda k: sections[k[0]]):
        values = ast.literal_eval(value).split()
        for variable in UV_NAMES.get(name, ()):
            found[variable] = ("," if name == "find-links" else " ").join(values)
    return found


def install(python: Path) -> None:
    """Installs requirements.txt for this Python. Raises CalledProcessError if that fails."""

    def run(*arguments, **options):
        return subprocess.run([python, "-m", *arguments], cwd=ROOT, check=True, **options)

    def asked(*arguments, **options):
        return run(*arguments, capture_output=True, **TEXT, **options)

    wanted = ["-r", "requirements.txt"]
    try:
        asked("pip", "install", "--disable-pip-version-check", "uv")
        settings = asked("pip", "config", "list").stdout
        if ".no-index=" in settings:
            raise ValueError("pip is set to use no index")
        own = {**os.environ, **for_uv(settings), **{k: v for k, v in os.environ.items() if k.startswith("UV_")}}
        command = ["uv", "pip", "install", "--python", str(python), f"--torch-backend={backend()}", *wanted]
        # First a look, without the usual retries: that an index cannot be reached is clear within seconds.
        quick = {"UV_HTTP_RETRIES": "0", "UV_HTTP_CONNECT_TIMEOUT": "5"}
        asked(*command, "--dry-run", env=own | quick, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError, ValueError) as failure:
        said = (getattr(failure, "stderr", None) or str(failure)).strip().splitlines()
        reason = next((line.strip() for line in said if "Failed to fetch" in line), said[0] if said else "no reason")
        print(f"PyTorch's own index cannot be used ({reason}): installing the build of pip's index.", flush=True)
        run("pip", "install", "--quiet", "--disable-pip-version-check", *wanted)
    else:
        run(*command, "--quiet", env=own)


def main() -> int:
    reason = unsupported()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    folder = ROOT / ".venv"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install(python)
    except subprocess.CalledProcessError as failure:  # it has said why
        return failure.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
