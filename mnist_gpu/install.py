"""Sets the course up in .venv, with the build of PyTorch that fits this computer: `python -m mnist_gpu.install`.

PyPI has one build of PyTorch for each system: on Linux one for NVIDIA's newer cards, several GB even where there is no
card; on Windows one without any GPU. The others are in PyTorch's own index, and uv finds out which of them fits. Where
that index cannot be reached, or pip has settings of its own, pip installs PyPI's build. This file needs only Python.
"""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = {"encoding": "utf-8", "errors": "replace"}  # what programs say
# Settings of pip that uv does not read: where packages come from, which of them, and the way there.
OF_PIP = r"(?m)^(?:global|install|:env:)\.([\w-]*index[\w-]*|find-links|constraint|cert|proxy|trusted-host)="


def backend() -> str:
    """The build to ask uv for: the one it chooses, or, for a card that only CUDA 12.6's have code for, that.

    uv looks at the driver alone. CUDA 13's builds hold no code below compute capability 7.5, 12.6's none from 10.0 on.
    """
    try:
        command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, timeout=20, check=True, **TEXT).stdout
        cards = [float(line) for line in said.split()]
    except (OSError, subprocess.SubprocessError, ValueError):  # no card, no driver, or one too old to say
        return "auto"
    return "cu126" if cards and min(cards) < 7.5 and max(cards) < 10 else "auto"


def install(python: Path) -> None:
    """Installs requirements.txt for this Python. Raises CalledProcessError if that fails."""
    run, heard = partial(subprocess.run, cwd=ROOT, check=True), {"capture_output": True, **TEXT}
    pip, wanted = [python, "-m", "pip", "install", "--disable-pip-version-check"], ["-r", "requirements.txt"]
    uv = [python, "-m", "uv", "pip", "install", "--python", str(python), f"--torch-backend={backend()}", *wanted]
    try:
        settings = run([python, "-m", "pip", "config", "list"], **heard).stdout
        if own := re.search(OF_PIP, settings):
            raise ValueError(f"pip has a setting of its own, {own[1]}")
        run([*pip, "uv"], **heard)
        # First a look, without the usual retries: that an index cannot be reached is clear within seconds.
        quick = os.environ | {"UV_HTTP_RETRIES": "0", "UV_HTTP_CONNECT_TIMEOUT": "5"}
        run([*uv, "--dry-run"], env=quick, timeout=120, **heard)
    except (OSError, subprocess.SubprocessError, ValueError) as failure:
        said = (getattr(failure, "stderr", None) or str(failure)).strip().splitlines()
        reason = next((line.strip() for line in said if "Failed to fetch" in line), said[0] if said else "no reason")
        print(f"PyTorch's own index is not used ({reason}): installing the build of pip's index.", flush=True)
        run([*pip, "--quiet", *wanted])
    else:
        run([*uv, "--quiet"])


def main() -> int:
    folder = ROOT / ".venv"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    except subprocess.CalledProcessError as failure:  # it has said why
        return failure.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
