import copy
import json
import subprocess
import sys

import pytest

from mnist_gpu.measuring.published import (
    CARDS,
    FORMAT,
    KINDS,
    MEASURED,
    QUANTITIES,
    SHEET,
    card_of,
    published,
    read_published,
)

SOURCE = {"title": "A table", "url": "https://example.org/table", "date": "2026-01-31"}
FIGURE = {"quantity": "float32", "value": 8.1e12, "kind": SHEET, "source": "table"}
EXAMPLE = {
    "format": FORMAT,
    "sources": {"table": SOURCE},
    "cards": {"T4": {"full_name": "NVIDIA Tesla T4", "device_names": ["Tesla T4"], "figures": [FIGURE]}},
}


@pytest.fixture
def file(tmp_path):
    """Writes a file of published figures, changed by a function, and returns its path."""

    def write(change=lambda content: None):
        content = copy.deepcopy(EXAMPLE)
        change(content)
        path = tmp_path / "cards.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def test_a_figure_has_its_card_value_unit_kind_and_source(file):
    (figure,) = read_published(file())
    assert figure.device_names == ("Tesla T4",)
    assert (figure.card, figure.full_name, figure.quantity, figure.value) == (
        "T4",
        "NVIDIA Tesla T4",
        "float32",
        8.1e12,
    )
    assert (figure.kind, figure.unit, figure.source._asdict()) == (SHEET, "FLOP/s", SOURCE)


def test_a_missing_value_stays_missing(file):
    path = file(lambda c: c["cards"].update({"M9": {"full_name": "Another", "device_names": ["M9"], "figures": []}}))
    assert [f.card for f in read_published(path)] == ["T4"]


def changed(**fields):
    return lambda c: c["cards"]["T4"]["figures"][0].update(fields)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(format="mnist_gpu results 1"), "its format is 'mnist_gpu results 1'"),
        (lambda c: c.pop("sources"), "the file has cards, format, but must have format, sources, cards"),
        (
            lambda c: c["cards"]["T4"]["figures"][0].pop("source"),
            "a figure of T4 has kind, quantity, value, but must have",
        ),
        (changed(source="hearsay"), "T4: source 'hearsay' is none of table"),
        (changed(kind="recorded"), "T4: kind 'recorded' is none of data sheet, measured by others"),
        (changed(quantity="FLOPS"), "T4: quantity 'FLOPS' is none of float32, TF32"),
        (changed(value="8.1 TFLOP/s"), "T4: float32 is '8.1 TFLOP/s', but must be a number above 0"),
        (changed(value=0), "T4: float32 is 0, but must be a number above 0"),
        (changed(value=True), "T4: float32 is True"),
        (changed(value=float("nan")), "T4: float32 is nan"),
        (changed(note="approximately"), "a figure of T4 has kind, note, quantity, source, value, but must have"),
        (lambda c: c["cards"]["T4"]["figures"].append(FIGURE), "T4: float32 of table is there twice"),
        (lambda c: c["sources"]["table"].update(date="last year"), "Invalid isoformat string: 'last year'"),
        (lambda c: c["sources"]["table"].update(url="a friend"), "source table needs a title and an address"),
        (lambda c: c["sources"]["table"].update(title=""), "source table needs a title and an address"),
        (lambda c: c["sources"]["table"].pop("date"), "source table has title, url, but must have title, url, date"),
        (lambda c: c["cards"]["T4"].pop("full_name"), "T4 has device_names, figures, but must have full_name,"),
        (lambda c: c["cards"]["T4"].update(device_names=[]), "T4: device_names is [], but must be a list of names"),
        (lambda c: c["cards"]["T4"].update(device_names=[4]), "T4: device_names is [4], but must be a list of names"),
        (lambda c: c.update(cards=[1]), "object has no attribute"),
    ],
)
def test_anything_else_is_refused_with_what_is_wrong(file, change, said):
    path = file(change)
    with pytest.raises(ValueError) as error:
        read_published(path)
    assert f"{path} is not a file of format {FORMAT!r}: " in str(error.value) and said in str(error.value)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "cards.json").write_text("T4: fast", encoding="utf-8")
    with pytest.raises(ValueError, match="is not a file of format"):
        read_published(tmp_path / "cards.json")


# The course's own file


def test_every_published_figure_is_of_a_size_that_hardware_has():
    likely = {"FLOP/s": (1e12, 5e15), "bytes/s": (1e10, 1e13), "s": (1e-7, 1e-4)}
    every = published()
    assert len(every) > 50 and {f.kind for f in every} == set(KINDS)
    for figure in every:
        low, high = likely[figure.unit]
        assert low < figure.value < high, figure


def test_nobody_measures_more_than_the_data_sheet_promises():
    pairs = {"float32": "float32", "TF32": "TF32", "bfloat16": "bfloat16", "copy": "memory"}
    checked = 0
    for figure in published(kind=MEASURED):
        for sheet in published(card=figure.card, quantity=pairs.get(figure.quantity, "none"), kind=SHEET):
            assert 0.3 < figure.value / sheet.value <= 1, figure
            checked += 1
    assert checked > 15


def test_figures_are_chosen_by_card_quantity_and_kind():
    a100 = published(card="A100", quantity="float32")
    assert {f.card for f in a100} == {"A100"} and [f.kind for f in a100] == [SHEET, MEASURED]
    assert {f.quantity for f in published()} <= set(QUANTITIES)
    assert published(card="H200", kind=MEASURED) == []  # nobody's figures of it are known here
    with pytest.raises(ValueError, match=r"nothing is published here of 'H900'; there are: T4, P100, .*M3 Max"):
        published(card="H900")


def test_a_card_is_known_by_what_pytorch_calls_it_and_its_variants_are_other_cards():
    assert card_of("NVIDIA H200") == "H200" and card_of("Tesla T4") == "T4"
    for other in ("NVIDIA H200 NVL", "NVIDIA L40S", "NVIDIA A100-SXM4-40GB", "NVIDIA GeForce RTX 4090 Laptop GPU", ""):
        assert card_of(other) is None
    names = {f.card: f.device_names for f in published()}
    every = [name for own in names.values() for name in own]
    assert len(every) == len(set(every))


def test_the_file_travels_with_the_course_and_needs_no_network():
    code = (
        "import socket; socket.socket = None; from mnist_gpu.measuring import published as p; print(len(p.published()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) == len(published()) and CARDS.is_file()
