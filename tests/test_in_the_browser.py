"""Chapters as a reader meets them: `make lab`, a browser, Run All Cells. Skipped where there is no browser to drive."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from test_canonical import notebooks

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
expect = sync_api.expect

ROOT = Path(__file__).resolve().parent.parent
CHAPTER = "notebooks/01_detect_the_gpu.ipynb"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]  # a sandbox does not work for root, as in containers
ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
SETTINGS = "lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
# What each code cell shows: its prompt, the kinds of its outputs, its text, the widths of its images (0 if broken).
# Of a solution prompt and output are folded.
LOOK = """() => [...document.querySelectorAll(".jp-Notebook .jp-CodeCell")].map(cell => ({
    prompt: cell.querySelector(".jp-InputPrompt")?.textContent.trim() ?? "",
    kinds: [...cell.querySelectorAll(".jp-OutputArea-output")].map(o => o.dataset.mimeType),
    text: cell.querySelector(".jp-OutputArea")?.textContent ?? "",
    images: [...cell.querySelectorAll(".jp-OutputArea-output img")].map(i => i.complete ? i.naturalWidth : 0),
}))"""
ERROR, STDERR = "application/vnd.jupyter.error", "application/vnd.jupyter.stderr"

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium or Chrome here"),
    pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here"),
]


def without_outputs(text: str) -> dict:
    """A notebook as it would be before it has run."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        cell |= {"outputs": [], "execution_count": None}
    return notebook


def within(seconds, found, check=lambda: None):
    """What `found()` returns as soon as it is true, or else after so many seconds; `check()` may end the waiting."""
    end = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < end:
        check()
        time.sleep(0.25)
    return value


def end(make: psutil.Popen):
    """Ends the server, which ends its kernels, and then kills what is still there."""
    started = [make]
    with contextlib.suppress(psutil.NoSuchProcess):
        started += make.children(recursive=True)
    # To the whole group, as make may just be starting the server. Each kernel has a group of its own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(make.pid, signal.SIGTERM)
    for process in psutil.wait_procs(started, 15)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(make.pid, signal.SIGKILL)
    make.wait(5)


@contextlib.contextmanager
def lab(folder: Path, name: str):
    """`make lab` on a copy of the notebooks, by a reader who starts it for the first time.

    Yields the address of the chapter `name`. The server and the kernels are ended in any case.
    """
    shutil.copytree(ROOT / "notebooks", folder / "course" / "notebooks")
    chapter = folder / "course" / name
    notebook = nbformat.read(chapter, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":  # what is seen later was computed here
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, chapter)
    settings = folder / "config" / SETTINGS
    settings.parent.mkdir(parents=True)
    # Cells that are scrolled out of view are in the page, too.
    settings.write_text('{"windowingMode": "none"}', encoding="utf-8")

    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    env |= {f"JUPYTER_{kind.upper()}_DIR": str(folder / kind) for kind in ("config", "data", "runtime")}
    options = f"--no-browser --ServerApp.port=0 --ServerApp.root_dir={shlex.quote(str(folder / 'course'))}"
    # -o: this Python's environment is used as it is, so nothing is to be set up.
    command = ["make", "-o", ".venv/.ready", "lab", f"BIN={sysconfig.get_path('scripts')}", f"LAB={options}"]
    log = folder / "lab.log"
    with log.open("w", encoding="utf-8") as file:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
        make = psutil.Popen(command, cwd=ROOT, env=env, start_new_session=True, **quiet)

    def alive():
        assert make.poll() is None, f"`make lab` ended by itself:\n{log.read_text(encoding='utf-8')}"

    def address():
        return re.search(rf"http://localhost:\d+/lab/tree/{CHAPTER}\?token=\w+", log.read_text(encoding="utf-8"))

    try:
        found = within(60, address, alive)
        assert found, f"`make lab` printed no address:\n{log.read_text(encoding='utf-8')}"
        yield found.group().replace(CHAPTER, name)
    finally:
        end(make)


@pytest.fixture
def page():
    """A page of a real browser."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


@pytest.mark.parametrize("chapter", [CHAPTER, "notebooks/zh/04_the_training_loop.ipynb"])
def test_a_chapter_runs_in_the_browser(tmp_path, page, chapter):
    every = nbformat.read(ROOT / chapter, 4).cells
    title, stored = every[0].source.splitlines()[0].removeprefix("# "), [c for c in every if c.cell_type == "code"]
    shown = [i for i, c in enumerate(stored) if "solution" not in c.metadata.get("tags", [])]
    figures = [sum("image/png" in o.get("data", {}) for o in c.outputs) for c in stored]
    assert sum(figures) >= 2

    with lab(tmp_path, chapter) as address:

        def cells(what):
            return [cell[what] for cell in page.evaluate(LOOK)]

        def prompts():
            found = cells("prompt")
            return [found[i] for i in shown] if len(found) == len(stored) else found

        def no_error():
            outputs = zip(cells("kinds"), cells("text"), strict=True)
            assert not (found := [text for kinds, text in outputs if {ERROR, STDERR} & set(kinds)]), "\n".join(found)

        def all_have_run():
            return prompts() == [f"[{i + 1}]:" for i in shown]

        def all_is_drawn():
            return all(sum(w > 0 for w in widths) >= n for widths, n in zip(cells("images"), figures, strict=True))

        page.goto(address)
        expect(page.get_by_role("heading", name=title)).to_be_visible(timeout=60_000)
        idle = page.get_by_text("Python 3 (ipykernel) | Idle")
        expect(idle).to_be_visible(timeout=60_000)
        assert prompts() == ["[ ]:"] * len(shown)

        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        assert within(300, all_have_run, no_error), f"not every cell has run: {cells('prompt')}"
        expect(idle).to_be_visible(timeout=10_000)

        no_error()
        assert cells("text")[0].startswith("Device: ")
        assert within(10, all_is_drawn), f"widths of the images: {cells('images')}, stored figures: {figures}"
        assert all(map(all, cells("images"))), f"an image is broken; their widths: {cells('images')}"
        assert page.locator(".jp-Dialog, .Toastify__toast").all_inner_texts() == [], "something covers the page"

        # Saved in JupyterLab, a chapter comes into its one form, and has the same cells.
        file = tmp_path / "course" / chapter
        page.keyboard.press("Control+s")
        assert within(10, lambda: '"execution_count": 1,' in file.read_text(encoding="utf-8")), "it was not saved"
        saved, stored = file.read_text(encoding="utf-8"), (ROOT / chapter).read_text(encoding="utf-8")
        made = notebooks.canonical(saved, file.name, notebooks.repository(ROOT))
        assert without_outputs(made) == without_outputs(stored) != without_outputs(saved)
