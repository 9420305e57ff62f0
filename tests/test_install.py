"""The set-up: which build of PyTorch it asks for, and what it does where that cannot be had. Nothing is installed."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mnist_gpu import install

UNREACHABLE = """error: Request failed
  cause: Failed to fetch: https://example.org/whl/cpu/torch/
  cause: dns error"""


@pytest.fixture
def computer(monkeypatch):
    """A computer whose programs answer what a test says; `ran` has their commands, with uv's environment."""
    here = SimpleNamespace(ran=[], smi=None, pip="", uv=None, translated="0")

    def run(command, check=False, env=None, **options):
        command = [str(part) for part in command]
        here.ran.append((command, env))
        said, status = "", 0
        if command[0] == "nvidia-smi":
            if here.smi is None:
                raise FileNotFoundError(command[0])
            said, status = here.smi
        elif command[0] == "sysctl":
            said = here.translated
        elif command[-2:] == ["config", "list"]:
            said = here.pip
        elif "--dry-run" in command and here.uv:
            if here.uv == "never answers":
                raise subprocess.TimeoutExpired(command, 1)
            raise subprocess.CalledProcessError(2, command, "", here.uv)
        if status and check:
            raise subprocess.CalledProcessError(status, command, said, "")
        return subprocess.CompletedProcess(command, status, said, "")

    monkeypatch.setattr(install.subprocess, "run", run)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    for name in ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_CONSTRAINT", "SSL_CERT_FILE", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return here


def installs(here):
    """The commands that install requirements.txt."""
    return [command for command, _ in here.ran if "requirements.txt" in command and "--dry-run" not in command]


@pytest.mark.parametrize(
    ("smi", "backend"),
    [
        (None, "auto"),
        (("8.6\n", 0), "auto"),
        (("6.1\n7.5\n", 0), "cu126"),
        (("6.0\n12.0\n", 0), "auto"),  # no build has code for both
        (('Field "compute_cap" is not a valid field to query.\n', 2), "auto"),
        (("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9), "auto"),
        (("[N/A]\n", 0), "auto"),
        (("", 0), "auto"),
    ],
)
def test_uv_chooses_the_build_except_for_a_card_that_only_older_builds_have_code_for(computer, capfd, smi, backend):
    computer.smi = smi
    assert install.main() == 0
    (command,) = installs(computer)
    assert "uv" in command and f"--torch-backend={backend}" in command and capfd.readouterr().out == ""


@pytest.mark.parametrize("uv", [UNREACHABLE, "error: no version of torch is available", "never answers"])
def test_where_pytorchs_index_cannot_be_used_pip_installs_and_one_line_says_so(computer, capfd, uv):
    computer.uv = uv
    assert install.main() == 0
    (command,) = installs(computer)
    assert command[1:4] == ["-m", "pip", "install"]
    (said,) = capfd.readouterr().out.splitlines()
    assert "https://example.org/whl/cpu/torch/" in said if uv == UNREACHABLE else len(said) < 300


def test_pips_settings_reach_uv_and_uvs_own_go_first(computer, monkeypatch):
    computer.pip = "\n".join(
        [
            "global.index-url='https://mirror.example.org/simple'",
            "global.extra-index-url='\\nhttps://a.example.org/simple\\nhttps://b.example.org/simple'",
            "global.cert='/etc/site.pem'",
            "install.cert='/etc/install.pem'",
            ":env:.constraint='/etc/constraints.txt'",
            "global.constraint='/etc/older.txt'",
            "global.proxy='http://proxy.example.org:3128'",
            "global.find-links='/wheels /more'",
            "list.format='columns'",
            "download.index-url='https://other.example.org'",
        ]
    )
    monkeypatch.setenv("UV_CONSTRAINT", "/own.txt")
    monkeypatch.setenv("SSL_CERT_FILE", "/system.pem")
    assert install.main() == 0
    environment = next(env for command, env in computer.ran if "--dry-run" in command)
    expected = {
        "UV_DEFAULT_INDEX": "https://mirror.example.org/simple",
        "UV_INDEX": "https://a.example.org/simple https://b.example.org/simple",
        "SSL_CERT_FILE": "/etc/install.pem",
        "UV_CONSTRAINT": "/own.txt",
        "HTTPS_PROXY": "http://proxy.example.org:3128",
        "UV_FIND_LINKS": "/wheels,/more",
    }
    assert {name: environment[name] for name in expected} == expected


def test_a_site_that_forbids_every_index_gets_pip_alone(computer):
    computer.pip = "global.no-index='true'"
    assert install.main() == 0
    assert [command[2] for command in installs(computer)] == ["pip"]
    assert not any("--dry-run" in command for command, _ in computer.ran)


def test_what_fails_gives_its_status(computer, monkeypatch):
    fine = install.subprocess.run

    def run(command, **options):
        if "requirements.txt" in command and "--dry-run" not in command:
            raise subprocess.CalledProcessError(7, command)
        return fine(command, **options)

    monkeypatch.setattr(install.subprocess, "run", run)
    assert install.main() == 7


@pytest.mark.parametrize(
    ("translated", "remedy"), [("", "hosted notebook"), ("0", "hosted notebook"), ("1", "silicon")]
)
def test_on_an_intel_mac_it_says_what_to_do_instead_of_installing(computer, monkeypatch, capfd, translated, remedy):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    computer.translated = translated
    assert install.main() == 1
    said = capfd.readouterr().err
    assert remedy in said and not [command for command, _ in computer.ran if "pip" in command]


def test_an_old_python_is_named(computer, monkeypatch, capfd):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.4")
    assert install.main() == 1
    said = capfd.readouterr().err
    assert "3.11" in said and "3.10.4" in said and computer.ran == []


def test_it_needs_nothing_but_python():
    """It runs before anything is installed. -S leaves out what is."""
    code = "import sys; sys.path.insert(0, '.'); import mnist_gpu.install"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=install.ROOT, env=os.environ | {"PYTHONPATH": ""})
    assert done.returncode == 0
