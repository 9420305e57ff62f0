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


def changed(tmp_path, change):
    content = json.loads(FILE.read_text(encoding="utf-8"))
    change(content)
    path = tmp_path / "claims.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_file_that_is_not_as_described_is_refused_by_name(tmp_path):
    assert read(changed(tmp_path, lambda content: None)).keys() == claims().keys()
    for change in (
        lambda content: content.update(format="another"),
        lambda content: content["claims"]["mlp"].update(runs=[]),
        lambda content: content["claims"]["mlp"]["runs"][0].update(seconds=-1),
        lambda content: content["claims"]["mlp"]["runs"][0].update(kind="gpus"),
        lambda content: content["claims"]["mlp"].update(unsaid=""),
        lambda content: content["claims"]["mlp"].pop("source"),
    ):
        with pytest.raises(ValueError, match=r"claims\.json"):
            read(changed(tmp_path, change))
