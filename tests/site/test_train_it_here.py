"""The page that trains: the package's numbers on both sides; what is missing is said; it works for everybody."""

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from moving import in_html, in_signs
from torch.nn.utils import parameters_to_vector

from mnist_gpu.data import CHECKSUMS, DeviceBatches, Order, data_root
from mnist_gpu.model import make_model
from mnist_gpu.training import evaluate, make_step

ROOT = Path(__file__).resolve().parents[2]
PLAY = "/notebooks/play/"
PAGE = PLAY + "train_it_here.html"
RAW = data_root() / "MNIST" / "raw"
FILES = [str(RAW / name) for name in CHECKSUMS]
NO_WEBGPU = "delete Navigator.prototype.gpu"
WITHOUT_MODELS = """
    const out = {};
    for (const [key, side] of Object.entries(await course.train(plan)))
        out[key] = {...side, losses: [...side.losses], model: undefined};
    return out;
"""  # 100,000 weights a side, which no test reads


@pytest.fixture
def go(visit, serve):
    """go(before="a script", **options of visit) -> the page, when it has looked for a GPU."""

    def go(before: str = "", **options):
        page = visit(serve(ROOT) + PAGE, **options)
        if before:
            page.add_init_script(before)
            page.reload()
        page.evaluate("course.ready")
        return page

    return go


def trained(page, **plan) -> dict:
    """What course.train gives, without the models."""
    return page.evaluate(f"async (plan) => {{{WITHOUT_MODELS}}}", plan)


def at_work(mnist, steps: int = 30, epochs: int = 1):
    """The package's model after the first `steps` of each epoch, and their losses."""
    model = make_model()
    step = make_step(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
    batches, losses = DeviceBatches(*mnist), []
    for _ in range(epochs):
        losses += [step(*batches.batch(index)).item() for index in batches.order.draw()[:steps]]
    return model, losses


@pytest.fixture(scope="module")
def thirty(mnist):
    """The package's model after thirty steps, and their losses."""
    return at_work(mnist)


@pytest.fixture
def with_webgpu(go):
    """The page, where the browser finds an adapter."""
    page = go()
    if not page.evaluate("async () => !!(await navigator.gpu?.requestAdapter())"):
        pytest.skip("this browser has no adapter for WebGPU, not even in software")
    return page


def test_weights_and_order_are_those_that_pytorch_draws(go):
    drawn = go(NO_WEBGPU).evaluate("""() => {
        const {weights, rest} = drawModel(), random = new Random(SEED);
        return [[...weights, ...rest], [...drawOrder(random, 60000)], [...drawOrder(random, 60000)]];
    }""")
    weights, *passes = map(torch.tensor, drawn)
    assert torch.equal(weights, parameters_to_vector(make_model().parameters()))
    order = Order(60_000)
    for drawn in passes:
        assert torch.equal(drawn, torch.cat(order.draw()))


def test_thirty_steps_have_the_losses_and_the_predictions_of_the_package(with_webgpu, thirty, mnist_test):
    page, (model, losses) = with_webgpu, thirty
    page.locator("input[value=thirty]").check()
    page.get_by_role("button", name="Train").click()
    page.wait_for_selector("#result:not([hidden])", timeout=400_000)
    sides = page.evaluate("Object.entries(course.results).map(([k, s]) => [k, [...s.losses], s.accuracy, s.seconds])")
    accuracy = evaluate(model, DeviceBatches(*mnist_test, 1000, None)).accuracy
    assert [key for key, *_ in sides] == ["gpu", "cpu"]
    for _, theirs, share, seconds in sides:
        assert theirs == pytest.approx(losses, abs=1e-4)
        assert share == pytest.approx(accuracy, abs=0.002) and len(seconds) == 1 and seconds[0] > 0
    said = page.locator("#said").inner_text()
    assert said.count(f"loss {losses[0]:.3f}") == 2 and "over steps 21 to 30" in said
    names = ["Seconds an epoch", "Images a second", "Loss, last 10 steps", "Test accuracy", "Submissions in all"]
    assert page.locator("#table th[scope=row]").all_inner_texts() == names
    for number in (3, 18, 4711):
        page.evaluate(f"course.example({number})")
        with torch.no_grad():
            expected = model(mnist_test[0][number].div(127.5).sub(1)[None, None]).softmax(1)[0].tolist()
        assert page.evaluate("course.probabilities") == pytest.approx(expected, abs=1e-3)
        best = max(range(10), key=expected.__getitem__)
        assert page.locator("#reading").inner_text().startswith(f"It reads {best}, with ")
        assert f"test image {number}; its label is {mnist_test[1][number]}." in page.locator("#reading").inner_text()
        assert page.locator("#answers .best th").inner_text() == str(best)


def test_both_ways_to_submit_give_the_same_losses(with_webgpu, mnist):
    page, (_, losses) = with_webgpu, at_work(mnist, steps=3, epochs=2)
    page.evaluate("() => { GpuNetwork.prototype.warmUp = async () => 2; }")  # steps at once: parts of 2 and 1
    for sending, submissions in (("epoch", 4), ("step", 6)):
        gpu = trained(page, steps=3, epochs=2, sending=sending)["gpu"]
        assert gpu["losses"] == pytest.approx(losses, abs=1e-4) and gpu["submissions"] == submissions


def test_the_smaller_last_batch_is_trained_on_too(with_webgpu, mnist):
    batches = DeviceBatches(*mnist)
    last = batches.order.draw()[-1]
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(make_model()(batches.batch(last)[0]), mnist[1][last]).item()
    found = with_webgpu.evaluate("""async () => {
        const gpu = await GpuNetwork.open((await findAdapter()).adapter, await getData());
        gpu.write(drawModel());
        gpu.device.queue.writeBuffer(gpu.arrays.order, 0, drawOrder(new Random(SEED), gpu.n));
        return (await gpu.run(468, 469, 1))[0];
    }""")
    assert len(last) == 96 and found == pytest.approx(expected, abs=1e-4)


def test_without_webgpu_the_cpu_trains_an_epoch_as_the_package_does(go, mnist, mnist_test):
    page, (model, losses) = go(NO_WEBGPU), at_work(mnist, steps=469)
    assert "Chrome and Edge have it since version 113" in page.locator("#device").inner_text()
    assert not page.locator("#sending").is_visible()
    sides = trained(page, steps=469, epochs=1)
    assert list(sides) == ["cpu"] and sides["cpu"]["losses"] == pytest.approx(losses, abs=1e-3)
    accuracy = evaluate(model, DeviceBatches(*mnist_test, 1000, None)).accuracy
    assert sides["cpu"]["accuracy"] == pytest.approx(accuracy, abs=0.002)
    page.set_viewport_size({"width": 500, "height": 900})  # the curve is drawn again
    points = page.locator("polyline.cpu-line").get_attribute("points")
    assert len(points.split()) == 235 and "NaN" not in points  # 469 steps, two in a point


def test_a_gpu_that_fails_is_reported_and_the_cpu_trains(with_webgpu, thirty):
    with_webgpu.evaluate("() => { GpuNetwork.prototype.run = () => Promise.reject(Error('the device is lost')); }")
    sides = trained(with_webgpu, steps=30, epochs=1)
    assert list(sides) == ["cpu"] and sides["cpu"]["losses"] == pytest.approx(thirty[1], abs=1e-4)
    assert "the device is lost" in with_webgpu.locator("#fault").inner_text()


@pytest.mark.parametrize(
    ("information", "software"),
    [
        ({"vendor": "google", "architecture": "swiftshader"}, True),
        ({"vendor": "mesa", "description": "llvmpipe (LLVM 15.0.7, 256 bits)"}, True),
        ({"vendor": "microsoft", "description": "Microsoft Basic Render Driver"}, True),
        ({"vendor": "somebody", "isFallbackAdapter": True}, True),
        ({"vendor": "intel", "architecture": "gen-12lp", "isFallbackAdapter": False}, False),
        ({"vendor": "", "architecture": ""}, False),
    ],
)
def test_software_is_never_called_a_gpu(go, information, software):
    adapter = f"{{requestAdapter: async () => ({{info: {json.dumps(information)}}})}}"
    page = go(f"Object.defineProperty(navigator, 'gpu', {{value: {adapter}}})")
    device, legend = page.locator("#device").inner_text(), page.locator("#gpuLegend").inner_text()
    assert ("offers no GPU" in device) == ("(software)" in legend) == software
    assert software or (device.startswith("The browser offers this GPU: ") and legend == "GPU")
    assert page.locator("input[value=thirty]").is_checked() == software


def test_a_training_that_is_stopped_can_begin_again(go, thirty):
    page = go(NO_WEBGPU)
    page.locator("input[value=five]").check()
    page.get_by_role("button", name="Train").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("course.results.cpu?.losses.length > 0", timeout=60_000)
    assert page.locator("#stop").evaluate("(button) => button === document.activeElement")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('status').textContent === TEXT.stopped")
    assert page.locator("#train").evaluate("(button) => button === document.activeElement && !button.disabled")
    assert trained(page, steps=30, epochs=1)["cpu"]["losses"] == pytest.approx(thirty[1], abs=1e-4)


# As JupyterLab's viewer shows a page: from a blob, in a frame without an origin, its address as the base of links.
IN_JUPYTERLAB = """async () => {
    const html = await (await fetch("train_it_here.html")).text();
    const inside = new DOMParser().parseFromString(html, "text/html").documentElement.innerHTML;  // without <html lang>
    const page = inside.replace("<head>", `<head><base href="${location.href}train_it_here.html" target="_self">`);
    const frame = document.createElement("iframe");
    frame.sandbox = "allow-scripts";
    frame.style.width = "100%";
    frame.style.height = "850px";
    frame.src = URL.createObjectURL(new Blob([page], {type: "text/html"}));
    document.body.replaceChildren(frame);
}"""


def test_where_nothing_can_be_fetched_chosen_files_train(visit, serve, mnist, tmp_path):
    outer = visit(serve(ROOT) + PLAY)
    outer.evaluate(IN_JUPYTERLAB)
    page = outer.frame_locator("iframe")
    page.locator("#files").wait_for()
    assert "may not fetch" in page.locator("#why").inner_text()
    assert (
        page.locator("nav a").count() == 0 and "(notebooks/01_detect_the_gpu.ipynb)" in page.locator("nav").inner_text()
    )
    renamed, unpacked = tmp_path / "digits (1).gz", tmp_path / "labels"
    renamed.write_bytes(Path(FILES[0]).read_bytes())
    unpacked.write_bytes(gzip.decompress(Path(FILES[1]).read_bytes()))
    page.locator("#picker").set_input_files([renamed, unpacked])
    missing = page.locator("#status", has_text="Missing still: ")
    missing.wait_for()
    assert missing.inner_text() == f"Missing still: {Path(FILES[2]).name}, {Path(FILES[3]).name}."
    page.locator("#picker").set_input_files(FILES[2:])
    page.locator("#status", has_text="You can train now").wait_for()
    assert not page.locator("#files").is_visible()
    frame = outer.frames[1]
    frame.evaluate("course.ready")
    sides = frame.evaluate(f"async (plan) => {{{WITHOUT_MODELS}}}", {"steps": 3, "epochs": 1})
    _, losses = at_work(mnist, steps=3)
    for side in sides.values():
        assert side["losses"] == pytest.approx(losses, abs=1e-4)
    assert "cpu" in sides


def packed(magic: int, n: int, length: int) -> bytes:
    return gzip.compress(magic.to_bytes(4, "big") + n.to_bytes(4, "big") + bytes(length - 8))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Path(FILES[3]).read_bytes()[:3000], "it cannot be unpacked"),
        (b"<!doctype html>", "it begins with the number"),
        (b"", "it begins with the number 0"),
        (packed(2051, 5000, 16 + 5000 * 784), "it holds 5000"),
        (packed(2049, 10_000, 8 + 9_999), "it has 10007 bytes unpacked, but should have 10008"),
    ],
    ids=["cut off", "another file", "empty", "other images", "too short"],
)
def test_a_broken_file_is_named(go, content, said):
    page = go(NO_WEBGPU)
    page.evaluate("window.fetch = async () => new Response('', {status: 404})")
    page.get_by_role("button", name="Train").click()
    page.locator("#files").wait_for()
    assert re.search(r"^\S+-ubyte\.gz: it could not be fetched \(404\)", page.locator("#why").inner_text())
    page.locator("#picker").set_input_files([{"name": "mine.gz", "mimeType": "", "buffer": content}])
    page.locator("#fault", has_text="mine.gz: " + said).wait_for()
    page.locator("#picker").set_input_files(FILES)
    page.locator("#status", has_text="You can train now").wait_for()
    assert page.locator("#fault").inner_text() == ""


def test_a_drawing_is_scaled_and_centred_as_mnist_does(go, mnist_test):
    page = go(NO_WEBGPU)
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + 20)  # a small L in a corner
    page.mouse.down()
    page.mouse.move(box["x"] + 30, box["y"] + 120, steps=5)
    page.mouse.move(box["x"] + 80, box["y"] + 120, steps=5)
    page.mouse.up()
    seen = torch.tensor([*page.evaluate("[...course.seen]")]).view(28, 28).float()
    rows, columns = seen.sum(1), seen.sum(0)
    assert (rows > 0).sum() == 20 and 9 <= (columns > 0).sum() <= 14
    place = torch.arange(28)
    for sums in (rows, columns):
        assert (sums * place).sum() / sums.sum() == pytest.approx(14, abs=0.6)
    assert sum(page.evaluate("course.probabilities")) == pytest.approx(1)
    assert "not trained yet" in page.locator("#reading").inner_text()

    for number in range(20):  # a test image, drawn ten times as large, comes back as it was
        page.evaluate(f"course.example({number})")
        page.evaluate("readPad()")
        back = torch.tensor([*page.evaluate("[...course.seen]")])
        assert (back - mnist_test[0][number].flatten()).abs().max() <= 1
    page.get_by_role("button", name="Wipe").click()
    assert page.locator("#reading").inner_text().startswith("Nothing is drawn yet.")


def test_everything_works_with_the_keyboard_alone(go):
    page = go(NO_WEBGPU)
    press = page.keyboard.press
    active = "document.activeElement.id || document.activeElement.name || document.activeElement.dataset.t"

    def tab_to(name: str) -> None:
        for _ in range(12):
            press("Tab")
            if page.evaluate(active) == name:
                return
        raise AssertionError(f"Tab does not lead to {name}")

    tab_to("course")
    tab_to("readme")
    tab_to("length")
    press("ArrowUp")
    assert page.locator("input[value=thirty]").is_checked()
    tab_to("train")
    press("Enter")
    page.wait_for_selector("#result:not([hidden])", timeout=60_000)
    assert page.evaluate(active) == "train"
    tab_to("pad")
    press("Space")
    for key in ["ArrowUp"] * 6 + ["ArrowRight"] * 4:
        press(key)
    assert page.locator("#pen").inner_text() == "pen down, column 19, row 9"
    assert sum(page.evaluate("course.probabilities")) == pytest.approx(1)
    inked = page.evaluate("course.seen.filter((byte) => byte).length")
    press("Space")
    press("ArrowLeft")
    assert page.locator("#pen").inner_text() == "pen up, column 18, row 9"
    assert page.evaluate("course.seen.filter((byte) => byte).length") == inked
    press("Delete")
    assert page.evaluate("course.seen") is None
    tab_to("example")
    press("Enter")
    page.locator("#reading", has_text="This is test image").wait_for()
    tab_to("wipe")
    press("Space")
    assert page.evaluate("course.seen") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_has_no_barriers_and_fits_a_phone(go, axe, scheme):
    page = go(NO_WEBGPU, width=360, scheme=scheme)

    def fine() -> None:
        assert not axe(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360

    fine()
    page.evaluate("askForFiles(say('opaque'))")
    fine()
    page.locator("input[value=thirty]").check()
    page.get_by_role("button", name="Train").click()
    page.wait_for_selector("#result:not([hidden])", timeout=60_000)
    page.evaluate("course.example(1)")
    fine()


LABELS = "[...document.querySelectorAll('[aria-label]')].map((element) => element.ariaLabel).join(' ')"


def test_every_word_can_be_replaced(visit, serve, tmp_path):
    html = (ROOT / PAGE[1:]).read_text("utf-8")
    (tmp_path / "signs.html").write_text(in_signs("train_it_here"), encoding="utf-8")
    page = visit(f"{serve(tmp_path)}/signs.html")
    page.add_init_script(NO_WEBGPU)
    page.reload()
    page.evaluate("askForFiles(say('opaque'))")
    page.locator("#picker").set_input_files(FILES)
    page.wait_for_function("!missing().length")
    page.evaluate("askForFiles(say('opaque'))")

    def left() -> set[str]:
        return set(re.findall(r"[^\W\d_]+", page.locator("body").inner_text() + page.evaluate(LABELS)))

    assert not left()
    trained(page, steps=30, epochs=1)
    page.evaluate("course.example(1)")
    assert not left() and page.locator("body").inner_text().count("§") > 1000
    rest = html.split("</noscript>")[1]
    assert not [key for key in in_html.texts(html) if f'"{key}"' not in rest and f'data-t="{key}"' not in html]


def test_without_scripts_it_says_what_to_press(visit, serve):
    page = visit(serve(ROOT) + PAGE, java_script_enabled=False)
    assert "Trust HTML" in page.locator("noscript").inner_text()
    assert not page.locator("#all").is_visible()


def test_links_lead_to_what_is_there(visit, serve, tmp_path):
    for address in re.findall(r'<a [^>]*href="([^"]+)"', (ROOT / PAGE[1:]).read_text("utf-8")):
        assert (ROOT / PLAY[1:] / address).resolve().is_file()
    there = tmp_path / "files" / PLAY[1:]
    there.mkdir(parents=True)
    shutil.copy(ROOT / PAGE[1:], there)
    links = "[...document.querySelectorAll('nav a')].map((link) => link.href)"
    jupyter = serve(tmp_path)  # a file in a tab of its own
    lab = f"{jupyter}/lab/tree"
    leads_to = visit(f"{jupyter}/files{PAGE}").evaluate(links)
    assert leads_to == [f"{lab}/notebooks/01_detect_the_gpu.ipynb", f"{lab}/README.md"]
    play = serve(ROOT)
    leads_to = visit(play + PAGE).evaluate(links)
    assert leads_to == [f"{play}/notebooks/01_detect_the_gpu.ipynb", f"{play}/README.md"]


def test_the_shared_style_has_enough_contrast():
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted(map(luminance, (one, other)))
        return (high + 0.05) / (low + 0.05)

    style = (ROOT / "site/play/style.css").read_text("utf-8")
    schemes = re.findall(r":root \{(.*?)\}", style, flags=re.S)
    assert len(schemes) == 2
    for scheme in schemes:
        colors = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        assert contrast(colors["strong"], colors["on-strong"]) >= 4.5
        for ground in (colors["page"], colors["panel"]):
            for name in ("ink", "quiet", "link", "bad"):
                assert contrast(colors[name], ground) >= 4.5, name
            for name in ("edge", "one", "two", "three", "four"):
                assert contrast(colors[name], ground) >= 3, name
