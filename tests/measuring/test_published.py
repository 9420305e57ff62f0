"""The course's file of published figures is as its reader describes it, and what is made of it."""

import datetime
import json

import pytest

from mnist_gpu.measuring.published import (
    CARDS,
    FORMAT,
    KINDS,
    QUANTITIES,
    SHEET,
    card_of,
    cards,
    insides,
    named,
    published,
    sources,
)


def test_the_file_has_for_every_figure_a_known_quantity_and_kind_a_number_and_a_source_and_none_twice():
    content = json.loads(CARDS.read_text(encoding="utf-8"))
    assert content.keys() == {"format", "sources", "cards"} and content["format"] == FORMAT
    for source in content["sources"].values():
        assert source.keys() == {"title", "url", "date"} and source["title"] and source["url"].startswith("https://")
        datetime.date.fromisoformat(source["date"])
    used = set()
    for name, card in content["cards"].items():
        assert card.keys() - {"capability"} == {"full_name", "device_names", "figures"} and card["device_names"], name
        seen = set()
        for figure in card["figures"]:
            assert figure.keys() == {"quantity", "value", "kind", "source"}, (name, figure)
            assert figure["quantity"] in QUANTITIES and figure["kind"] in KINDS and figure["value"] > 0, (name, figure)
            assert figure["source"] in content["sources"], (name, figure)
            seen.add((figure["quantity"], figure["kind"], figure["source"]))
            used.add(figure["source"])
        assert len(seen) == len(card["figures"]), f"a figure of {name} is there twice"
    assert used == content["sources"].keys()


def test_figures_are_chosen_by_card_quantity_and_kind():
    every = published()
    chosen = published(card="A100", quantity="float32", kind=SHEET)
    assert chosen == [f for f in every if (f.card, f.quantity, f.kind) == ("A100", "float32", SHEET)] and chosen
    assert {f.quantity for f in published(card="T4")} >= {"float32", "memory", "warps"}
    for ask in (named, lambda name: published(card=name)):
        with pytest.raises(ValueError, match=r"'H900'; there are: T4, .*H200"):
            ask("H900")
    with pytest.raises(KeyError):
        named("T4").get("colour")
    assert named("P100").get("lanes") is None  # what nobody published


def test_lanes_times_two_times_the_clock_is_the_data_sheets_peak():
    assert len(insides()) >= 5
    for card in insides():
        if card.peak:
            assert card.peak == pytest.approx(card.sheet_peak, rel=0.02), card.name
    a100 = named("A100")
    assert a100.latency == a100.get("memory cycles") / a100.get("clock") and named("T4").latency is None


def test_a_card_is_known_by_what_pytorch_calls_it():
    names = [name for card in cards().values() for name in card.device_names]
    assert len(set(names)) == len(names) and card_of("AMD EPYC") is None
    assert all(card_of(name) == card.name for card in cards().values() for name in card.device_names)


def test_a_source_is_listed_once_with_its_cards():
    text = sources(published(quantity="memory"))
    assert all(text.count(f.source.url) == 1 for f in published(quantity="memory")) and "T4, " in text
