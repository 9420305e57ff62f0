"""The published head-to-head runs: what the reader takes, and what it refuses."""

import json

import pytest

from mnist_gpu.measuring.claims import claims, read
from mnist_gpu.measuring.prediction import PUBLISHED

FILE = PUBLISHED / "head_to_heads.json"


def test_the_two_trainings_that_the_course_begins_with_are_there():
    mlp, vgg16 = claims()["mlp"], claims()["vgg16"]
    assert mlp.seconds("GTX 1080 Ti") >= mlp.seconds("Intel CPU")  # no faster
    assert vgg16.seconds("Intel CPU") / vgg16.seconds("GTX 1080 Ti") == pytest.approx(19.7, abs=0.1)
    with pytest.raises(KeyError, match="Abacus"):
        mlp.seconds("Abacus")


def test_a_file_that_is_not_as_described_is_refused_by_name(tmp_path):
    path = tmp_path / "claims.json"
    for change in (
        lambda content, mlp: content.update(format="another"),
        lambda content, mlp: mlp.update(runs=[]),
        lambda content, mlp: mlp["runs"][0].update(seconds=-1),
        lambda content, mlp: mlp["runs"][0].update(kind="gpus"),
        lambda content, mlp: mlp.update(unsaid=""),
        lambda content, mlp: mlp.pop("source"),
    ):
        content = json.loads(FILE.read_text(encoding="utf-8"))
        change(content, content["claims"]["mlp"])
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(ValueError, match=r"claims\.json"):
            read(path)
