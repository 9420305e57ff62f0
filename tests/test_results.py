import json
import os
import stat
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

from mnist_gpu import checks
from mnist_gpu.measuring import results
from mnist_gpu.measuring.results import FORMAT, REFERENCE, Results, Skipped, Timed, read, recorded, write

SECONDS = [0.2, 0.1, 0.4, 0.3, 0.5, 0.6, 0.8, 0.7, 1.0, 0.9]
EXAMPLE = Results(
    environment={"device_name": "NVIDIA H200", "cpu_name": "AMD EPYC", "memory_bytes": 2**37, "driver": None},
    measurements=[
        Timed("ladder", "device", "cuda", 1, SECONDS, {"hidden": 128}, {"images": 110, "steps": 1}, 2.5, {"loss": 0.5}),
        Timed("ladder", "device", "cpu", 1, [3.0, 4.0], {"hidden": 128}),
        Timed("crossover", "step", "cpu", 1, [1e-5], {"hidden": 128, "batch_size": 32}),
        Timed("crossover", "step", "cpu", 2, [2e-5], {"hidden": 512, "batch_size": 32}),
    ],
    date="2026-01-31",
    skipped=[Skipped("ladder", "TF32", "cpu", "needs an NVIDIA GPU"), Skipped("peers", "Keras", "cpu", "failed: ä")],
)


def test_what_is_written_is_read_back_equal_and_everybody_can_read_it_also_after_a_failed_write(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write(path, EXAMPLE)
    monkeypatch.setattr(checks.os, "replace", Mock(side_effect=OSError))
    with pytest.raises(OSError, match=path.name):
        write(path, again())
    assert read(path) == EXAMPLE and [p.name for p in tmp_path.iterdir()] == ["results.json"]
    assert json.loads(path.read_text(encoding="utf-8"))["format"] == FORMAT
    assert os.name != "posix" or stat.S_IMODE(path.stat().st_mode) == 0o644


def again(measurements=(), skipped=()):
    """A second run on the machine of EXAMPLE."""
    return Results(EXAMPLE.environment, list(measurements), "2026-02-01", list(skipped))


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_an_old_measurement_gives_way_to_the_same_one_with_as_many_rounds_or_more(rounds):
    ladder = Timed("ladder", "device", "cpu", 1, [5.0] * rounds, {"hidden": 128})  # EXAMPLE's has two
    account = Timed("account", "step", "cpu", 1, [1.0])
    other = replace(EXAMPLE.measurements[1], parameters={"hidden": 64})  # which takes nobody's place
    found = results.merged(EXAMPLE, again([ladder, account, other])).measurements
    kept = replace(ladder, run=1) if rounds >= 2 else EXAMPLE.measurements[1]
    new = [replace(account, run=1), replace(other, run=1)]
    assert found == [EXAMPLE.measurements[0], kept, *EXAMPLE.measurements[2:], *new]


def test_what_is_skipped_removes_nothing_and_what_is_measured_later_is_skipped_no_longer():
    cut_short = [Skipped("ladder", name, device, "x") for name in ("device", "TF32") for device in ("cpu", "cuda")]
    found = results.merged(EXAMPLE, again(skipped=cut_short))
    assert found.measurements == EXAMPLE.measurements
    assert found.skipped == [EXAMPLE.skipped[1], *cut_short]  # the newer reason stands for what both have skipped

    broken = replace(EXAMPLE, skipped=[*EXAMPLE.skipped, Skipped("peers", results.BROKEN_OFF, "cpu", "an error")])
    found = results.merged(broken, again([Timed("peers", "Keras", "cpu", 1, [1.0])]))
    assert found.skipped == [EXAMPLE.skipped[0]]
    first = replace(EXAMPLE, environment=EXAMPLE.environment | {"load_average": 0.1})
    second = replace(again(), environment=EXAMPLE.environment | {"load_average": 0.7})
    found = results.merged(first, second)
    assert found.environment["load_average"] == 0.7 and found.date == "2026-02-01" and found.skipped == first.skipped


def test_only_what_one_run_has_timed_in_turn_is_compared():
    old = [Timed("ladder", name, "cpu", 1, [seconds] * 10) for name, seconds in (("a", 4.0), ("b", 2.0), ("c", 1.0))]
    first, second = replace(EXAMPLE, measurements=old), again([replace(old[0], seconds=[9.0] * 12)])
    found = results.merged(first, second).measurements
    pairs = [("a", "b"), ("b", "c"), ("b", "not there")]
    assert [c.names for c in results.compare_in_turn(found, pairs)] == [("b", "c")]
    assert [c.ratio for c in results.compare_in_turn(old, pairs)] == [2.0, 2.0]
    third = results.merged(results.merged(first, second), again(old)).measurements
    assert [c.names for c in results.compare_in_turn(third, pairs)] == [("b", "c")]  # a's twelve rounds stay


def test_results_of_another_machine_are_not_merged():
    other = replace(EXAMPLE, environment=EXAMPLE.environment | {"driver": "580", "memory_bytes": 1})
    with pytest.raises(ValueError, match="memory_bytes, driver"):
        results.merged(EXAMPLE, other)


MEASUREMENT = {"section": "ladder", "name": "device", "device": "cpu", "threads": 1, "seconds": [1.0]}
WHOLE = {"format": FORMAT, "date": "2026-01-31", "environment": {}, "measurements": [MEASUREMENT]}


def test_a_file_that_is_no_results_file_is_named(tmp_path):
    path = tmp_path / "foreign.json"
    path.write_text(json.dumps(WHOLE), encoding="utf-8")
    assert [m.seconds for m in read(path).measurements] == [[1.0]]
    broken = [{"format": "mnist_gpu results 0"}, {"measurements": [{"section": "ladder"}]}, {"skipped": [{}]}]
    times = [], [1.0, 0.0], [float("nan")], [float("inf")], "fast"
    broken += [{"measurements": [MEASUREMENT | {"seconds": seconds}]} for seconds in times]
    texts = ["[1, 2]", "{}", json.dumps(WHOLE)[:-30], *(json.dumps(WHOLE | change) for change in broken)]
    for content in (b"\xff\xfe\x00\x81", *(text.encode() for text in texts)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=FORMAT) as caught:
            read(path)
        assert str(path) in str(caught.value)
        with pytest.raises(ValueError, match=r"foreign\.json"):
            recorded(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        read(tmp_path / "nothing.json")


def test_select_finds_by_section_name_fields_and_parameters():
    gpu, cpu, narrow, wide = EXAMPLE.measurements
    assert EXAMPLE.select("ladder") == [gpu, cpu]
    assert EXAMPLE.select("ladder", device="cpu") == [cpu]
    assert EXAMPLE.select("crossover", "step", hidden=128) == [narrow]
    assert EXAMPLE.select("crossover", threads=2, batch_size=32) == [wide]
    assert EXAMPLE.select("ladder", "step") == EXAMPLE.select("pipelines") == EXAMPLE.select("ladder", size=1) == []


def test_median_rates_and_epochs_come_from_the_raw_times():
    gpu = EXAMPLE.measurements[0]
    assert gpu.median == pytest.approx(0.55) and gpu.rate("images") == pytest.approx(200)
    # Of ten times the second smallest, 0.2 s, and the second largest, 0.9 s.
    measured = Timed("ladder", "plain", "cpu", 1, [0.5, 0.25], per_call={"images": 6000})
    assert measured.per_epoch() == pytest.approx([5.0, 2.5])


def test_machines_that_have_nothing_else_than_this_one_may_be_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "cpu_name", lambda: "AMD EPYC")
    monkeypatch.setattr(results, "device_name", lambda device: {"cpu": "AMD EPYC", "cuda": "NVIDIA T4"}[device.type])
    for cpu, device in (("AMD EPYC", "AMD EPYC"), ("AMD EPYC", "NVIDIA T4"), ("Intel Xeon", "Intel Xeon")):
        write(tmp_path / f"{cpu}, {device}.json", Results({"cpu_name": cpu, "device_name": device}, [], "2026-01-01"))

    def left(device):
        found = recorded(tmp_path, unlike=torch.device(device))
        return [(r.environment["cpu_name"], r.environment["device_name"]) for r in found]

    assert left("cpu") == [("AMD EPYC", "NVIDIA T4"), ("Intel Xeon", "Intel Xeon")]
    assert left("cuda") == [("Intel Xeon", "Intel Xeon")]
    assert len(recorded(tmp_path)) == 3 and recorded(tmp_path / "nowhere") == []


def test_every_recorded_result_of_the_repository_is_whole():
    found = recorded()
    assert len(found) == len(list(REFERENCE.glob("*.json")))
    for one in found:
        assert one.measurements
        for field in ("device", "device_name", "cpu_name", "driver", "torch", "cuda", "threads", "memory_bytes"):
            assert field in one.environment
