"""What is written for services that do not run here: it is well-formed, and the commands in it are there."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from mnist_gpu import __version__
from mnist_gpu.__main__ import parser

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
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
            # pip is here; where somebody looks for it, setuptools changes how this whole process imports distutils.
            found += [module] if module != "pip" and importlib.util.find_spec(module) is None else []
            if module == "mnist_gpu":
                parser(rest[0]).parse_args(rest)
        found += [w for w in words if OURS.fullmatch(w) and not list(ROOT.glob(w))]
    return found


def test_what_is_not_here_is_found():
    assert faults("make tests lint .venv/.ready") == ["tests"]
    assert faults("$BIN/python -m pytest tests/no.py tests/test_*.py install.py") == ["tests/no.py", "install.py"]
    assert faults("python -m mnist_gpu.instal") == ["mnist_gpu.instal"]
    assert faults(".ci/runs") == [".ci/runs"] and faults(".ci/run && make lint\nmake it") == ["it"]
    for wrong in ("python -m mnist_gpu trian", "python -m mnist_gpu train --era 1"):
        with pytest.raises(SystemExit):
            faults(wrong)


def test_the_container_does_the_set_up_and_shows_jupyterlabs_port():
    assert faults(CONTAINER["postCreateCommand"]) == [] and CONTAINER["forwardPorts"] == [8888]
    python = tuple(map(int, re.search(r"python:(\d+)\.(\d+)$", CONTAINER["image"]).groups()))
    assert python >= tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    assert CONTAINER["hostRequirements"]["gpu"] == "optional"


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*_*.yml"))
SCHEMAS = {
    "github-workflows": WORKFLOWS,
    "github-issue-forms": FORMS,
    "github-issue-config": [ROOT / ".github/ISSUE_TEMPLATE/config.yml"],
    "citation-file-format": [ROOT / "CITATION.cff"],
}


def strings(value: object) -> list[str]:
    """Every text in what a YAML file holds."""
    if isinstance(value, dict | list):
        return [s for part in (value.values() if isinstance(value, dict) else value) for s in strings(part)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_what_a_workflow_runs_is_here(path):
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    scripts = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert scripts and [fault for script in scripts for fault in faults(script)] == []


def test_windows_and_macos_run_what_the_instructions_without_make_say():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    smoke = " ".join(step.get("run", "") for step in jobs["smoke"]["steps"])
    said = (ROOT / "INSTALL.md").read_text(encoding="utf-8").split("## Without make")[1].split("\n## ")[0]
    assert "python -m mnist_gpu.install" in smoke and "python -m mnist_gpu.install" in said
    assert "-m pytest" in smoke and "-m pytest" in said and "make " not in smoke
    assert {m["bin"] for m in jobs["smoke"]["strategy"]["matrix"]["include"]} == {".venv/bin", ".venv/Scripts"}


def test_the_oldest_pytorch_that_is_tested_is_the_oldest_that_is_allowed():
    jobs = yaml.safe_load((ROOT / ".github/workflows/weekly.yml").read_text(encoding="utf-8"))["jobs"]
    oldest = jobs["tests"]["strategy"]["matrix"]["include"][0]["torch"]
    assert oldest.split() == [f"{bound.replace('>=', '==')}.*" for bound in PROJECT["dependencies"][:2]]


@pytest.mark.parametrize("path", FORMS, ids=lambda p: p.stem)
def test_a_form_asks_for_commands_that_are_here(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    commands = re.findall(r"`([^`]* -m [^`]*)`", "\n".join(strings(form)))
    assert any("mnist_gpu doctor" in command for command in commands)
    assert [fault for command in commands for fault in faults(command.lstrip("!"))] == []


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_file_fits_the_schema_of_the_service_that_reads_it(schema):
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed: pip install check-jsonschema")
    assert SCHEMAS[schema]
    options = ["--builtin-schema", f"vendor.{schema}", "--force-filetype", "yaml"]
    command = [sys.executable, "-m", "check_jsonschema", *options, *map(str, SCHEMAS[schema])]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_last_release_in_the_changelog_is_the_packages_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (unreleased|\d{4}-\d\d-\d\d)$", text, re.MULTILINE)
    assert len(entries) == text.count("\n## ") and "unreleased" not in dict(entries[1:]).values()
    released = [version for version, date in entries if date != "unreleased"]
    assert released[0] == __version__ == PROJECT["version"]
