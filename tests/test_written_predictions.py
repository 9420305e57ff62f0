import json
from pathlib import Path

import nbformat
import pytest
import torch

from mnist_gpu.__main__ import main
from mnist_gpu.measuring import predict, results, tables
from mnist_gpu.measuring.card import Host, Range, card_numbers, predict_ladder, predict_step, predictable
from mnist_gpu.measuring.predict import measure_host
from mnist_gpu.measuring.published import card_of
from mnist_gpu.measuring.results import Timed
from mnist_gpu.measuring.written_predictions import (
    DRAWN,
    PREDICTIONS,
    foretell,
    outcomes,
    read_predictions,
    write_predictions,
)

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
HOST = Host(launch=3e-4, textbook=1e-2, device=1e-4, disturbance=2e-3)
WRITTEN = foretell(HOST, date="2026-01-31", cpu="Some CPU")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "predictions.json"
    write_predictions(path, WRITTEN)
    return path


def test_what_is_read_is_what_was_written(file):
    assert read_predictions(file) == WRITTEN and WRITTEN.date == "2026-01-31" and WRITTEN.host == HOST
    assert {p.card for p in WRITTEN.predictions} == set(predictable())
    card = card_numbers("T4")
    assert WRITTEN.ladder("T4") == predict_ladder(card, HOST)
    sizes = {"batch_size": 512, "hidden": 32}
    (found,) = [p for p in WRITTEN.predictions if (p.card, p.parameters) == ("T4", sizes)]
    assert found.seconds == predict_step(card, HOST.launch, 512, 32)
    assert WRITTEN.label("T4") == "predicted: T4, with the CPU Some CPU (2026-01-31)"


def test_they_are_written_once(file):
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match=r"predictions.json is there already: predictions are written down once"):
        write_predictions(file, replace_date(WRITTEN))
    assert file.read_bytes() == before


def replace_date(written):
    return written._replace(date="2027-01-31")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(format="mnist_gpu results 1"),
        lambda c: c.pop("date"),
        lambda c: c.update(date="soon"),
        lambda c: c["host"].pop("launch"),
        lambda c: c.update(note="roughly"),
        lambda c: c["predictions"][0].update(seconds=[2.0, 1.0]),
        lambda c: c["predictions"][0].update(seconds=[0.0, 1.0]),
        lambda c: c["predictions"][0].update(seconds=1.0),
        lambda c: c["predictions"][0].pop("card"),
        lambda c: c["predictions"][0].update(measured=1.0),
    ],
)
def test_anything_else_is_refused(file, change):
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"predictions.json is not a file of format 'mnist_gpu predictions 1'"):
        read_predictions(file)


def recorded(folder, device_name):
    """A made-up recording of a card, read back from a file: its steps take 0.5 ms, an epoch of the textbook 5 s."""
    there = [
        Timed("crossover", "step", kind, 1, [5e-4] * 10, {"batch_size": 128, "hidden": 128}) for kind in ("cpu", "cuda")
    ]
    there.append(Timed("ladder", "textbook", "cuda", 1, [1.0] * 10, {"hidden": 128}, {"images": 12_000}))
    there.append(Timed("ladder", "textbook", "cuda", 1, [1.0] * 10, {"hidden": 2048}, {"images": 12_000}))
    environment = {"device_name": device_name, "cpu_name": "Another CPU"}
    results.write(folder / "made-up.json", results.Results(environment, there, "2026-02-28"))
    return results.recorded(folder)


def test_a_recorded_card_stands_beside_its_prediction_right_or_wrong(tmp_path):
    step, textbook = outcomes(WRITTEN, recorded(tmp_path, "Tesla T4"))
    assert (step.predicted.card, step.predicted.name, step.measured) == ("T4", "step", 5e-4)
    assert step.predicted.seconds == predict_step(card_numbers("T4"), HOST.launch)
    assert step.factor == pytest.approx(5e-4 / step.predicted.seconds.middle)
    assert step.right == (step.predicted.seconds.low <= 5e-4 <= step.predicted.seconds.high)
    assert textbook.measured == pytest.approx(5.0) and textbook.predicted.seconds == WRITTEN.ladder("T4")["textbook"]
    narrow = step._replace(predicted=step.predicted._replace(seconds=Range(1e-4, 4e-4)))
    assert not narrow.right and narrow.factor == pytest.approx(2.5)


def test_the_courses_own_predictions_were_written_before_any_of_these_cards_was_recorded():
    """The model may be improved later, and then no longer gives these numbers; they stay as they are."""
    written = read_predictions()
    assert PREDICTIONS.is_file() and set(DRAWN) <= {p.card for p in written.predictions} <= set(predictable())
    assert len({(p.card, p.section, p.name, str(p.parameters)) for p in written.predictions}) == 10 * (16 + 4)
    for machine in results.recorded():
        assert card_of(machine.environment["device_name"]) is None or written.date <= machine.date


def test_a_card_that_was_not_predicted_has_no_outcome(tmp_path):
    assert outcomes(WRITTEN, recorded(tmp_path, "NVIDIA H200 NVL")) == [] == outcomes(WRITTEN, [])


@pytest.mark.parametrize(("chapter", "rows"), [("05", 2), ("07", 1)])
def test_the_chapters_show_them_side_by_side(tmp_path, capsys, chapter, rows):
    """The chapter's own cell, with a made-up recording of a T4."""
    machines = recorded(tmp_path, "Tesla T4")
    (path,) = NOTEBOOKS.glob(f"{chapter}_*.ipynb")
    (code,) = [c.source for c in nbformat.read(path, as_version=4).cells if "tables.outcomes(found)" in c.source]
    names = {"read_predictions": lambda: WRITTEN, "written": WRITTEN, "recorded": lambda: machines, "tables": tables}
    exec(code, names | {"outcomes": outcomes, "device": torch.device("cuda")})
    out = capsys.readouterr().out
    assert "T4: textbook, hidden 128" in out and f"of {rows} measured times lie in the predicted range." in out


def test_the_readmes_figure_shows_a_recorded_cards_prediction_beside_it(tmp_path, capsys, monkeypatch):
    machines = recorded(tmp_path, "NVIDIA L4")
    monkeypatch.setattr(results, "recorded", lambda: machines)
    assert main(["figure", str(tmp_path / "ladder.png")]) == 0
    out = capsys.readouterr().out
    assert (tmp_path / "ladder.png").stat().st_size > 10_000
    assert [line.split(",")[0] for line in out.splitlines()[:-1]] == [f"predicted: {c}" for c in (*DRAWN, "L4")]


# The command


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(predict, "step_here", lambda batch, hidden: {1: 9e-4, 2: 5e-4})
    monkeypatch.setattr(predict, "measure_host", lambda: HOST)


def test_the_command_predicts_every_card_or_one(quick, capsys):
    assert main(["predict"]) == 0
    out = capsys.readouterr().out
    rows = [line.split()[0] for line in out.splitlines() if "x  " in line and line[0].isupper()]
    assert [card.split()[0] for card in predictable()] == rows
    assert "900 µs with 1 thread, 500 µs with 2 threads" in out and "nothing of it was measured" in out
    assert main(["predict", "A100", "--batch-size", "2048", "--hidden", "2048"]) == 0
    out = capsys.readouterr().out
    low, high = (1e6 * s for s in predict_step(card_numbers("A100"), 9e-4, 2048, 2048))
    assert "\nA100 " in out and "\nT4 " not in out and "https://" in out
    assert f"{float(f'{low:.2g}'):,.0f} to {float(f'{high:.2g}'):,.0f}" in out


def test_the_command_refuses_what_it_does_not_know(quick, capsys):
    assert main(["predict", "H900"]) == 2
    assert "no prediction for 'H900'; there are: T4, P100" in capsys.readouterr().err
    assert main(["predict", "--hidden", "0"]) == 2
    assert "hidden is 0" in capsys.readouterr().err


def test_the_command_writes_all_predictions_down_once(quick, tmp_path, capsys):
    path = tmp_path / "new.json"
    assert main(["predict", "T4", "--write-down", str(path)]) == 0
    found = read_predictions(path)
    assert found.predictions == WRITTEN.predictions and found.host == HOST
    assert main(["predict", "--write-down", str(path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["predict", "--write-down", str(tmp_path / "missing" / "new.json")]) == 2


def test_the_hosts_part_is_measured():
    host = measure_host(rounds=1)
    assert 0 < host.launch < host.textbook < 10 and 0 < host.device < host.textbook
    assert host.disturbance >= 0 and host.loop > 0
