"""The set-up: which build of PyTorch it asks for, and what it does where that cannot be had. Nothing is installed."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mnist_gpu import install

UNREACHABLE = "error: Request failed\n  cause: Failed to fetch: https://example.org/whl/cpu/torch/\n  cause: dns error"


@pytest.fixture
def computer(monkeypatch):
    """A computer whose programs answer what a test says; `installs` has the commands that install the course."""
    here = SimpleNamespace(installs=[], smi=None, uv=None, status=0, pip="")

    def run(command, **options):
        if command[0] == "nvidia-smi" and here.smi is None:
            raise FileNotFoundError(command[0])
        if "--dry-run" in command and here.uv:
            raise here.uv
        if "requirements.txt" in command and "--dry-run" not in command:
            here.installs.append([str(part) for part in command])
            if here.status:
                raise subprocess.CalledProcessError(here.status, command)
        says = here.smi if command[0] == "nvidia-smi" else here.pip if "config" in command else ""
        return subprocess.CompletedProcess(command, 0, says, "")

    monkeypatch.setattr(install.subprocess, "run", run)
    return here


NO_FIELD = 'Field "compute_cap" is not a valid field to query.\n'
CARDS = [("8.6\n", "auto"), ("6.1\n7.5\n", "cu126"), ("6.0\n12.0\n", "auto"), (NO_FIELD, "auto"), ("", "auto")]


@pytest.mark.parametrize(("smi", "backend"), [(None, "auto"), *CARDS])  # no build has code for the third
def test_uv_chooses_the_build_except_for_a_card_that_only_older_builds_have_code_for(computer, capfd, smi, backend):
    computer.smi = smi
    assert install.main() == 0
    (command,) = computer.installs
    assert "uv" in command and f"--torch-backend={backend}" in command and capfd.readouterr().out == ""


LATE, LOST = subprocess.TimeoutExpired("uv", 1), subprocess.CalledProcessError(2, "uv", "", UNREACHABLE)


@pytest.mark.parametrize(("failure", "reason"), [(LATE, ""), (LOST, "https://example.org/whl/cpu/torch/")])
def test_where_pytorchs_index_cannot_be_used_pip_installs_and_one_line_says_so(computer, capfd, failure, reason):
    computer.uv = failure
    assert install.main() == 0
    (command,) = computer.installs
    assert command[1:4] == ["-m", "pip", "install"]
    (said,) = capfd.readouterr().out.splitlines()
    assert reason in said
    computer.status = 7  # that of what fails
    assert install.main() == 7


@pytest.mark.parametrize("setting", ["global.index-url='https://mirror.example.org/simple'", ":env:.no-index='true'"])
def test_where_pip_has_settings_of_its_own_it_installs_by_them(computer, capfd, setting):
    computer.pip = f"global.timeout='60'\n{setting}"
    assert install.main() == 0 and "uv" not in computer.installs[0]
    assert setting.split("=")[0].rpartition(".")[2] in capfd.readouterr().out
    computer.pip = "global.timeout='60'\ndownload.index-url='https://mirror.example.org/simple'"
    assert install.main() == 0 and "uv" in computer.installs[1]


def test_it_needs_nothing_but_python():
    """It runs before anything is installed. -S leaves out what is."""
    code = "import sys; sys.path.insert(0, '.'); import mnist_gpu.install"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=install.ROOT, env=os.environ | {"PYTHONPATH": ""})
    assert done.returncode == 0
