"""The room of chapter 07: its section, what a step is made of, its table and figure, networks together."""

import pytest
import torch
from agreement import assert_same_losses
from PIL import Image

from mnist_gpu.chapters import chapter_07 as lab
from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster import compiled_epoch
from mnist_gpu.faster.ladder import ALL_THREADS, PLAIN, RUNGS, TEXTBOOK, WIDE
from mnist_gpu.measuring.prediction import Range
from mnist_gpu.measuring.results import Results, Skipped, Timed
from mnist_gpu.model import make_model
from mnist_gpu.training import make_step

MM, TRANSPOSED, *_ = lab.FLOORS
EPYC = {"device": "cpu", "cpu_name": "AMD EPYC", "device_name": "AMD EPYC", "load_average": 0.1}


def timed(name, seconds, device="cpu", threads=1, section="ladder", images=60_000, parameters=None, **proof):
    work, sizes = {"images": images, "steps": 10}, parameters or {"hidden": 128}
    return Timed(section, name, device, threads, [seconds] * 10, sizes, work, 9.0, proof)


def machine(*measured, name="AMD EPYC", load=0.1, skipped=()):
    return Results(EPYC | {"device_name": name, "load_average": load}, list(measured), "2026-01-31", skipped=skipped)


def test_the_ladder_is_measured_with_all_threads_too_and_on_a_wide_network(monkeypatch):
    asked = []
    monkeypatch.setattr(lab, "measure_ladder", lambda device, **options: asked.append(options) or [])
    first, every = {"steps": 7, "rounds": 3}, {"names": ALL_THREADS, "threads": 8, "steps": 7, "rounds": 3}
    wide = {"names": WIDE, "hidden": 2048, "steps": 50, "floor": False, "rounds": 3}
    alone = [first, wide]
    for device, cpus, expected in (("cpu", 8, [first, every, wide]), ("cpu", 1, alone), ("cuda", 8, alone)):
        asked.clear()
        monkeypatch.setattr(lab, "usable_cpus", lambda cpus=cpus: cpus)
        assert list(lab.LADDER.measure(torch.device(device), steps=7, rounds=3)) == [] and asked == expected


def test_rungs_are_compared_with_the_textbook_and_the_floor_with_the_plain_loop_and_the_fastest():
    times = {TEXTBOOK: 9.0, PLAIN: 3.0, "bfloat16 autocast": 0.5, "compiled epoch": 1.5, MM: 1.2, TRANSPOSED: 1.0}
    wide = [timed(name, 3.0 / i, parameters={"hidden": 2048}) for i, name in enumerate(WIDE, start=1)]
    said = lab.LADDER.summary(machine(*(timed(*one) for one in times.items()), *wide), "cpu")
    assert [line.split(" is ")[1][:4] for line in said[:4]] == ["3.00", "18.0", "6.00", "9.00"]  # over the textbook
    assert f"{TRANSPOSED} is 3.00 times as fast as {PLAIN}" in said[4]
    assert f"{TRANSPOSED} is 1.50 times as fast as compiled epoch" in said[5]  # bfloat16 has another floor
    assert [line.split(" is ")[1][:4] for line in said[6:]] == ["2.00", "3.00"] and "2048" in said[6]
    assert [c.names for c in lab.against_base(wide)] == [(WIDE[0], name) for name in WIDE[1:]]
    assert lab.LADDER.summary(machine(timed(PLAIN, 2.0), timed("fused optimizer", 1.0)), "cpu") == []


def test_a_gpu_through_webgpu_is_compared_with_the_cpu_and_drawn_by_its_name():
    names = [rung.name for rung in RUNGS if rung.hardware == "webgpu"]
    there = [timed(name, s, "webgpu", hardware="Iris Xe") for name, s in zip(names, (4.5, 0.9), strict=True)]
    found = machine(timed(TEXTBOOK, 9.0), timed(PLAIN, 2.25), *there)
    said = lab.LADDER.summary(found, "webgpu")
    assert len(said) == 4 and "epoch is 10.0 times as fast as textbook" in said[1] and "2.00" in said[2]
    assert "Iris Xe" in lab.ladder_figure([], found).says


def test_a_step_is_its_products_its_launches_and_the_rest(monkeypatch):
    """Every launch is said to take 1 s, so a pass of 64 batches of one image 64 s."""
    ran = []
    losses = lambda products, data, state, batches, *settings: torch.zeros(batches.shape[:2]).flatten()  # noqa: E731
    monkeypatch.setattr(compiled_epoch, "compiled", lambda: losses)
    fake = type("Measurement", (), {"median": 64.0})
    monkeypatch.setattr(lab, "measure", lambda function: ran.append(function()) or fake)
    measured = [timed(PLAIN, 90.0), timed("tensors in memory", 110.0), timed("backward written out", 60.0)]
    measured += [timed("compiled epoch", 45.0, products=TRANSPOSED.removeprefix("products alone, "))]
    found = lab.above_the_floor([*measured, timed(MM, 40.0), timed(TRANSPOSED, 30.0)])
    seconds = {name: [part / 1e6 for part in parts.values()] for name, parts in found.items()}
    assert seconds == {PLAIN: [3, 1, 1, 4], "backward written out": [3, 1, 1, 1], "compiled epoch": [3, 0, 1, 0.5]}
    assert list(found[PLAIN]) == ["products", "a slower library", "launches", "passes over memory"]
    assert [len(losses) for losses in ran] == [64] * 3  # the compiled epoch's as well


def test_the_figure_shows_a_few_rungs_of_every_machine_and_the_last_one_predicted(monkeypatch):
    predicted = {TEXTBOOK: Range(5.0, 6.0), lab.LAST: Range(0.02, 0.1)}
    monkeypatch.setattr(lab, "predicted_ladders", lambda machines: [("T4", predicted)])
    cpu = [timed(TEXTBOOK, 2.0), timed("fused optimizer", 0.5), timed("compiled epoch", 0.25), timed(MM, 0.2)]
    axes, says = lab.ladder_figure([], machine(*cpu, timed(TEXTBOOK, 1.5, threads=2)))
    rows = [text.get_text() for text in axes.get_yticklabels()]
    assert rows == ["1. textbook", "18. compiled epoch", "15. CUDA graph of an epoch"]
    assert sorted(text.get_text() for text in axes.texts) == ["0.02 to 0.1", "0.250 s, 8.00x", "2.00 s"]
    assert "1. textbook 2 seconds per epoch" in says and "0.02 to 0.1 seconds" in says and "2 threads" not in says
    both = machine(*cpu, timed(TEXTBOOK, 1.5, threads=2), timed(TEXTBOOK, 1.0, "cuda"), name="NVIDIA T4", load=0.6)
    says = lab.ladder_figure([both]).says  # one thread is no fair opponent of a GPU
    assert says.count("at a load of 0.6") == 3 and "2 threads" in says


def test_the_figure_is_drawn_from_recorded_files_alone_and_always_the_same(tmp_path, monkeypatch):
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    assert [lab.draw_ladder(file) for file in files] == [0, 0]
    first, second = (file.read_bytes() for file in files)
    says = Image.open(files[0]).text["Description"]  # for whoever cannot see it
    assert first == second and "1. textbook" in says and "CUDA graph of an epoch" in says and "floor" not in says
    monkeypatch.setattr(lab, "recorded", lambda: [])
    with pytest.raises(ValueError, match="recorded"):
        lab.draw_ladder(files[0])
    assert files[0].read_bytes() == first and sorted(tmp_path.iterdir()) == files


def test_a_table_of_other_libraries_says_who_was_right(monkeypatch, capsys):
    peer = {"section": "peers", "test_loss": 0.25, "lines_of_code": 12}
    measured = [timed(n, s, **peer) for n, s in (("plain loop", 1.0), ("JAX", 0.5), ("fastai", 2.0), ("twin", 1.0))]
    skipped = [Skipped("peers", "Keras", "cpu", "is not installed"), Skipped("ladder", "TF32", "cpu", "no")]
    monkeypatch.setattr(lab, "recorded", lambda: [machine(*measured, skipped=skipped), machine()])
    lab.libraries()
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[3:7]] == ["JAX", "plain", "twin", "fastai"]
    assert "Keras: is not installed." in said and "TF32" not in said
    assert "JAX is 2.00 times" in said and "plain loop is 2.00 times" in said and "No difference shown" in said


def test_every_network_gets_the_losses_and_weights_that_it_gets_alone(mnist):
    batches = list(DeviceBatches(mnist[0][:300], mnist[1][:300], batch_size=32))  # nine of 32 and one of 12
    models, alone = ([make_model(5, seed=i) for i in range(3)] for _ in range(2))
    step = lab.make_ensemble_step(models)
    losses = [step(*batch) for batch in batches]
    assert not any(one.requires_grad for one in losses) and not torch.allclose(losses[0][0], losses[0][1], atol=1e-2)
    for i, model in enumerate(alone):
        plain_step = make_step(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
        assert_same_losses(torch.stack(losses)[:, i], [plain_step(*batch) for batch in batches])
        for name, parameter in model.named_parameters():
            assert torch.allclose(step.weights[name][i], parameter, atol=1e-3)
    for now, then in zip(models[1].parameters(), make_model(5, seed=1).parameters(), strict=True):
        assert torch.equal(now, then) and now.grad is None
