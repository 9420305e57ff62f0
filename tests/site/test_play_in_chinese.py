"""The pages that move, in Chinese: in a browser they say the same numbers as the English ones, in Chinese."""

import re
import shutil

import pytest
from moving import PLAY, ROOT, at, editions, words

CHINESE = PLAY.parent / "zh/play"
# Of each page: a slider to move, and other settings.
SETTINGS = {
    "roofline": (
        "batch",
        [{"card": "A100", "way": "graph"}, {"card": "T4", "batch": 1}, {"batch": 65536, "width": 8192}],
    ),
    "timeline": ("kernel", [{"launch": 5, "kernel": 5}, {"kernels": 1, "steps": 1}]),
    "occupancy": (
        "registers",
        [{"threads": 48, "shared": 16}, {"card": "T4", "wait": "L2"}, {"card": "T4", "shared": 65}],
    ),
}
NAMES = [*SETTINGS, "train_it_here"]
# What is read on the page, and what a screen reader says: without code, the names of cards, and the sources' titles.
SAID = """() => {
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    const skipped = "script, noscript, code, option, li a, .quiet a";
    while (walk.nextNode()) {
        if (!walk.currentNode.parentElement.closest(skipped)) found.push(walk.currentNode.data);
    }
    for (const element of document.querySelectorAll("[aria-label], [aria-valuetext]")) {
        found.push(element.getAttribute("aria-label"), element.getAttribute("aria-valuetext"));
    }
    return found.filter(Boolean).join(" ");
}"""


@pytest.fixture(scope="module")
def address(serve):
    return f"{serve(ROOT)}/notebooks"


def chinese_texts(name: str) -> dict[str, str]:
    """The page's texts in Chinese; where one is not in step with its English, that is a note elsewhere, not a fault."""
    texts = editions.texts(f"notebooks/play/{name}.html", "zh")
    if behind := [text.key for text in texts if text.state != "translated"]:
        pytest.skip(f"not in step with the English: {', '.join(behind)}")
    return {text.key: text.translation for text in texts}


def numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d+(?:[.,]\d+)*", text))


def english_words(text: str) -> list[str]:
    return re.findall(r"\b[a-z]{3,}\b", text)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_page_says_in_chinese_what_the_english_one_says(visit, axe, address, name):
    assert chinese_texts(name)
    english, chinese = visit(f"{address}/play/{name}.html"), visit(f"{address}/zh/play/{name}.html", width=360)
    slider, settings = SETTINGS[name]
    assert chinese.evaluate("document.documentElement.lang") == "zh"
    begin = words(chinese)
    for page in (english, chinese):
        page.locator(f"#{slider}").press("ArrowRight")
    moved = words(chinese)
    assert moved != begin
    said = [(words(english), moved), *((at(english, **setting), at(chinese, **setting)) for setting in settings)]
    for theirs, ours in said:
        assert numbers(ours) == numbers(theirs)
        assert len(re.findall(r"[一-鿿]", ours)) > 20 and not english_words(ours)
        assert not re.search(r"[一-鿿][A-Za-z0-9]|[A-Za-z0-9%][一-鿿]|[，。；：] | [，。；：]", ours)
    assert {*english_words(chinese.evaluate(SAID))} <= {"launches"}  # as chapter 06 prints it
    assert axe(chinese) == []
    assert chinese.evaluate("document.documentElement.scrollWidth") <= 360


def test_train_it_here_trains_and_says_so_in_chinese(visit, axe, address):
    assert chinese_texts("train_it_here")
    page = visit(f"{address}/zh/play/train_it_here.html", width=360)
    page.add_init_script("delete Navigator.prototype.gpu")
    page.reload()
    page.evaluate("course.ready")
    page.evaluate("() => { LENGTHS.thirty.steps = 3; }")
    page.locator("input[value=thirty]").check()
    page.get_by_role("button", name="训练").click()
    page.wait_for_selector("#result:not([hidden])", timeout=60_000)
    losses, accuracy = page.evaluate("[course.results.cpu.losses, course.results.cpu.accuracy]")
    assert len(losses) == 3
    status = page.locator("#status").inner_text()
    assert re.fullmatch(rf"CPU（一个线程）：每轮 [\d.,]+ 秒，测试图像读对了 {100 * accuracy:.2f}%。", status)
    assert page.locator("#said").inner_text() == (
        f"CPU（一个线程）：第 1 步的损失是 {losses[0]:.4f}，第 1 到 3 步平均是 {sum(losses) / 3:.4f}。"
    )
    page.evaluate("course.example(3)")
    assert page.locator("#reading").inner_text().endswith("。这是测试图像 3，它的标签是 0。")
    assert {*english_words(page.evaluate(SAID))} <= {"https", "data", "raw", "make"}
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("folder", ["zh/", "course/zh/", ""])
def test_it_finds_the_images_in_a_clone_and_on_the_web(visit, serve, tmp_path, folder):
    """On the web, a language's pages lie in a folder of their own, with the data beside it. No request is in vain."""
    there = tmp_path / folder / "notebooks/zh/play"
    there.mkdir(parents=True)
    shutil.copy(CHINESE / "train_it_here.html", there)
    shutil.copytree(ROOT / "data/MNIST/raw", tmp_path / folder.removesuffix("zh/") / "data/MNIST/raw")
    page = visit(f"{serve(tmp_path)}/{folder}notebooks/zh/play/train_it_here.html")
    assert page.evaluate("getData().then(({ labels, testLabels }) => [labels.length, testLabels.length])") == [
        60_000,
        10_000,
    ]


@pytest.mark.parametrize("name", NAMES)
def test_without_scripts_the_page_is_in_chinese_and_says_how_to_get_them(visit, address, name):
    texts = chinese_texts(name)
    page = visit(f"{address}/zh/play/{name}.html", java_script_enabled=False)
    assert page.inner_text("h1") == page.title() == texts["title"]
    assert page.inner_text("noscript") == re.sub("<.*?>", "", texts["noscript"]) and "Trust HTML" in texts["noscript"]


@pytest.mark.parametrize(
    ("name", "file"), [("timeline", "06_where_the_time_goes"), ("train_it_here", "01_detect_the_gpu")]
)
def test_in_jupyterlabs_viewer_the_files_of_the_edition_are_named(visit, serve, tmp_path, name, file):
    assert chinese_texts(name)
    page = re.sub(r"^<!doctype html>\n<html[^>]*>", "", (CHINESE / f"{name}.html").read_text("utf-8"))
    (tmp_path / f"{name}.html").write_text(page, "utf-8")
    frame = f'<link rel="icon" href="data:,"><iframe sandbox="allow-scripts" src="{name}.html"></iframe>'
    (tmp_path / "viewer.html").write_text(frame, encoding="utf-8")
    said = visit(f"{serve(tmp_path)}/viewer.html").frames[1].inner_text("header")
    assert f"（notebooks/zh/{file}.ipynb）" in said and ("（README.zh.md）" in said) == (name == "train_it_here")
