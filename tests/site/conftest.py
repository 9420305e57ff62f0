"""A browser and a plain server for the tests of the pages. Without playwright or a Chromium they are skipped."""

import functools
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
ARGUMENTS += ["--disable-sync", "--disable-quic", "--enable-unsafe-webgpu"]  # WebGPU in software, where there is no GPU


def pytest_collection_modifyitems(items):
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):  # what a browser does takes too long for `make test`
            item.add_marker("long")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if BROWSER is None:
        pytest.skip("there is no Chromium or Chrome here")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def serve():
    """serve(folder) -> the address of a local server that shows it."""
    servers = []

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def visit(chromium):
    """visit(address, width=, scheme=, **options of a context) -> the page, loaded.

    At the end of the test, a request to another host, an error that no script caught, or one in the console fails it.
    """
    contexts, faults = [], []

    def go(address: str, width: int = 1400, scheme: str = "light", **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        host = "/".join(address.split("/")[:3])

        def only_ours(route):
            url = route.request.url
            if url.startswith((host + "/", "data:", "blob:")):
                route.continue_()
            else:
                faults.append(f"a request to {url}")
                route.abort()

        context.route("**/*", only_ours)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"an error: {error}"))
        page.on("console", lambda said: faults.append(f"console: {said.text}") if said.type == "error" else None)
        page.goto(address, wait_until="load")
        return page

    yield go
    for context in contexts:
        context.close()
    assert not faults, "\n".join(faults)


@pytest.fixture
def axe():
    """axe(page, *rules) -> what axe-core finds on it, by all its rules or by these, a line each."""
    sync = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")

    def find(page, *rules) -> list[str]:
        options = {"preload": False, **({"runOnly": rules} if rules else {})}
        violations = sync.Axe().run(page, options=options).response["violations"]
        return [f"{v['id']}: {v['help']}: {node['html'][:200]}" for v in violations for node in v["nodes"]]

    return find
