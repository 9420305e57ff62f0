"""The published head-to-head runs: what a chapter asks of them, and what the file says of each."""

import json

import pytest

from mnist_gpu.measuring.claims import claims
from mnist_gpu.measuring.prediction import PUBLISHED


def test_the_two_trainings_that_the_course_begins_with_are_there():
    mlp, vgg16 = claims()["mlp"], claims()["vgg16"]
    assert mlp.seconds("GTX 1080 Ti") >= mlp.seconds("Intel CPU")  # no faster
    assert vgg16.seconds("Intel CPU") / vgg16.seconds("GTX 1080 Ti") == pytest.approx(19.7, abs=0.1)
    with pytest.raises(KeyError, match="Abacus"):
        mlp.seconds("Abacus")


def test_every_claim_says_what_was_trained_on_what_for_how_long_and_what_it_leaves_unsaid():
    assert (
        json.loads((PUBLISHED / "head_to_heads.json").read_text(encoding="utf-8"))["format"]
        == "mnist_gpu head to heads 1"
    )
    for name, claim in claims().items():
        assert all((claim.title, claim.what, claim.source, claim.unsaid, claim.runs)), name
        assert all(run.kind in ("cpu", "gpu", "other") and 0 < run.seconds < 1e6 for run in claim.runs), name
        assert len({(run.device, run.of) for run in claim.runs}) == len(claim.runs), (
            f"a training of {name} is there twice"
        )
