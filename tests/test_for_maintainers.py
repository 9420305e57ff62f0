"""What is written for services that do not run here: it is well-formed, and the commands in it are there."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest

from mnist_gpu.__main__ import parser

ROOT = Path(__file__).resolve().parent.parent
CONTAINER = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
TARGETS = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)) | {
    ".venv/.ready"
}
OURS = re.compile(r"(\.ci|tests|notebooks|benchmarks|data|site)/\S*|[\w.-]+\.(py|txt|toml)")


def faults(script: str) -> list[str]:
    """What a script names that is not here: a target of make, a module, a file. Bad options end in SystemExit."""
    found = []
    for words in map(shlex.split, filter(None, re.split(r"\s*(?:&&|\n)\s*", script.strip()))):
        found += [w for w in words[1:] if words[0] == "make" and not w.startswith("-") and w not in TARGETS]
        if "-m" in words:
            module, *rest = words[words.index("-m") + 1 :]
            found += [module] if importlib.util.find_spec(module) is None else []
            if module == "mnist_gpu":
                parser(rest[0]).parse_args(rest)
        found += [w for w in words if OURS.fullmatch(w) and not list(ROOT.glob(w))]
    return found


def test_what_is_not_here_is_found():
    assert faults("make tests lint .venv/.ready") == ["tests"]
    assert faults("$BIN/python -m pytest tests/no.py tests/test_*.py install.py") == ["tests/no.py", "install.py"]
    assert faults("python -m mnist_gpu.instal") == ["mnist_gpu.instal"]
    assert faults(".ci/runs") == [".ci/runs"] and faults(".ci/run && make lint\nmake it") == ["it"]
    for wrong in ("python -m mnist_gpu trian", "python -m mnist_gpu train --epoch"):
        with pytest.raises(SystemExit):
            faults(wrong)


def test_the_container_does_the_set_up_and_shows_jupyterlabs_port():
    assert faults(CONTAINER["postCreateCommand"]) == [] and CONTAINER["forwardPorts"] == [8888]
    python = tuple(map(int, re.search(r"python:(\d+)\.(\d+)$", CONTAINER["image"]).groups()))
    required = re.search(r'requires-python = ">=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert python >= tuple(map(int, required.groups()))
    assert CONTAINER["hostRequirements"]["gpu"] == "optional"
