"""Sets the course up in .venv, with the build of PyTorch that fits this computer: `python -m mnist_gpu.install`.

PyPI has one build of PyTorch for each system: on Linux one for NVIDIA's newer cards, several GB even where there is no
card; on Windows one without any GPU. The others are in PyTorch's own index, and uv finds out which of them fits. Where
that index cannot be reached, pip installs PyPI's build. This file needs nothing but Python.
"""

import ast
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = {"encoding": "utf-8", "errors": "replace"}  # what programs say


# What pip's settings are called by uv, which reads none of them.
UV_NAMES = {
    "index-url": ["UV_DEFAULT_INDEX"], "extra-index-url": ["UV_INDEX"], "find-links": ["UV_FIND_LINKS"],
    "constraint": ["UV_CONSTRAINT"], "trusted-host": ["UV_INSECURE_HOST"], "cert": ["SSL_CERT_FILE"],
    "proxy": ["HTTP_PROXY", "HTTPS_PROXY"],
}  # fmt: skip


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


def for_uv(settings: str) -> dict[str, str]:
    """What `pip config list` says, as the environment variables that tell uv the same.

    In pip's order: a variable of the environment goes before a file's "install", and that before its "global".
    """
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # as pip: the newest of all indexes, not of the first
    lines = [line.partition("=")[::2] for line in settings.splitlines()]
    for section in ("global", "install", ":env:"):
        for key, value in lines:
            for variable in UV_NAMES.get(key.removeprefix(f"{section}."), ()):
                values = ast.literal_eval(value).split()
                found[variable] = ("," if variable == "UV_FIND_LINKS" else " ").join(values)
    return found


def install(python: Path) -> None:
    """Installs requirements.txt for this Python. Raises CalledProcessError if that fails."""
    run, heard = partial(subprocess.run, cwd=ROOT, check=True), {"capture_output": True, **TEXT}
    pip, wanted = [python, "-m", "pip", "install", "--disable-pip-version-check"], ["-r", "requirements.txt"]
    uv = [python, "-m", "uv", "pip", "install", "--python", str(python), f"--torch-backend={backend()}", *wanted]
    try:
        run([*pip, "uv"], **heard)
        settings = run([python, "-m", "pip", "config", "list"], **heard).stdout
        if ".no-index=" in settings:
            raise ValueError("pip is set to use no index")
        own = os.environ | for_uv(settings) | {k: v for k, v in os.environ.items() if k.startswith("UV_")}
        # First a look, without the usual retries: that an index cannot be reached is clear within seconds.
        quick = own | {"UV_HTTP_RETRIES": "0", "UV_HTTP_CONNECT_TIMEOUT": "5"}
        run([*uv, "--dry-run"], env=quick, timeout=120, **heard)
    except (OSError, subprocess.SubprocessError, ValueError) as failure:
        said = (getattr(failure, "stderr", None) or str(failure)).strip().splitlines()
        reason = next((line.strip() for line in said if "Failed to fetch" in line), said[0] if said else "no reason")
        print(f"PyTorch's own index is not used ({reason}): installing the build of pip's index.", flush=True)
        run([*pip, "--quiet", *wanted])
    else:
        run([*uv, "--quiet"], env=own)


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
