"""What is published of the inside of cards: read strictly, and right by the check that every reader can do."""

import copy
import json
import math

import pytest

from mnist_gpu.measuring.chips import CHIPS, FORMAT, QUANTITIES, WARP, chip, read_chips
from mnist_gpu.measuring.published import published

SOURCE = {"title": "A table", "url": "https://example.org/table", "date": "2026-01-31"}
EXAMPLE = {
    "format": FORMAT,
    "sources": {"table": SOURCE},
    "chips": {
        "A100": {
            "capability": "8.0",
            "facts": [
                {"quantity": "lanes", "value": 6912, "source": "table"},
                {"quantity": "clock", "value": 1.41e9, "source": "table"},
            ],
        }
    },
}


@pytest.fixture
def file(tmp_path):
    """Writes a file of chips, changed by a function, and returns its path."""

    def write(change=lambda content: None):
        content = copy.deepcopy(EXAMPLE)
        change(content)
        path = tmp_path / "chips.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def test_a_fact_has_its_value_and_source_and_what_is_missing_stays_missing(file):
    found = read_chips(file())["A100"]
    assert (found.capability, found.get("lanes"), found.facts["lanes"].source._asdict()) == ("8.0", 6912, SOURCE)
    assert found.get("L2") is None and found.latency is None
    assert found.peak == 6912 * 2 * 1.41e9
    without = read_chips(file(lambda c: c["chips"]["A100"]["facts"].pop()))["A100"]
    assert without.peak is None
    with pytest.raises(KeyError, match="cores"):
        found.get("cores")


def changed(**fields):
    return lambda c: c["chips"]["A100"]["facts"][0].update(fields)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(format="mnist_gpu published 1"), "its format is 'mnist_gpu published 1'"),
        (lambda c: c.pop("sources"), "the file has chips, format, but must have format, sources, chips"),
        (lambda c: c["chips"]["A100"]["facts"][0].pop("source"), "a fact of A100 has quantity, value, but must have"),
        (changed(source="hearsay"), "A100: source 'hearsay' is none of table"),
        (changed(quantity="cores"), "A100: quantity 'cores' is none of multiprocessors, lanes"),
        (changed(value="many"), "A100: lanes is 'many', but must be a number above 0"),
        (changed(value=0), "A100: lanes is 0, but must be"),
        (changed(value=True), "A100: lanes is True, but must be"),
        (changed(value=math.inf), "A100: lanes is inf, but must be"),
        (changed(about="SXM"), "a fact of A100 has about, quantity, source, value, but must have"),
        (changed(quantity="clock"), "A100: clock is there twice"),
        (lambda c: c["chips"]["A100"].pop("capability"), "A100 has facts, but must have capability, facts"),
        (lambda c: c["sources"]["table"].update(url="a friend"), "source table needs a title and an address"),
        (lambda c: c["sources"]["table"].update(date="lately"), "Invalid isoformat string: 'lately'"),
        (lambda c: c.update(chips=[1]), "object has no attribute"),
    ],
)
def test_anything_else_is_refused_with_what_is_wrong(file, change, said):
    path = file(change)
    with pytest.raises(ValueError) as error:
        read_chips(path)
    assert f"{path} is not a file of format {FORMAT!r}: " in str(error.value) and said in str(error.value)


# The course's own file


def test_lanes_times_two_times_clock_is_the_data_sheets_peak():
    found = read_chips(CHIPS)
    assert len(found) >= 5
    for one in found.values():
        assert abs(one.peak / one.sheet_peak - 1) < 0.01, one.name


def test_every_card_has_the_lanes_warps_and_memories_that_hardware_has():
    cards = {f.card for f in published()}
    for one in read_chips().values():
        assert one.name in cards
        assert one.get("lanes") / one.get("multiprocessors") in (64, 128)
        assert one.get("warps") in (32, 48, 64) and one.get("blocks") in (16, 24, 32)
        assert 2**16 <= one.get("shared memory") <= one.get("registers") == 2**18  # 65,536 registers of 4 bytes
        assert one.get("registers") < one.get("L2") < 2**27
        assert 1e9 < one.get("clock") < 3e9
        cycles = [one.get(f"{level} cycles") for level in ("arithmetic", "shared memory", "L2", "memory")]
        assert cycles == [None] * 4 or cycles == sorted(cycles)
        rates = [r for r in (one.bandwidth, one.get("L2 rate"), one.get("shared memory rate")) if r]
        assert rates == sorted(rates)
    assert set(QUANTITIES) == {q for one in read_chips().values() for q in one.facts} and WARP == 32


def test_a_card_of_which_nothing_is_published_is_named_with_those_there_are():
    assert chip("T4").latency is None and 2e-7 < chip("A100").latency < 4e-7
    with pytest.raises(ValueError, match=r"nothing is published here of the inside of 'M1'; there are: T4, V100, A100"):
        chip("M1")
