"""Synthetic sources: whom they show, in which contrast, and what their record says."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minet_sdk.errors import TrainingError
from minet_sdk.training.contrast import KNEE, PRESETS, ContrastSettings, random_pair
from minet_sdk.training.labels import SPLITS, read_subject
from minet_sdk.training.pairs import PairSource, open_source
from minet_sdk.training.splits import Split
from minet_sdk.training.synthetic import SyntheticOptions


def test_pairs_are_random_pairs_of_their_subject(labels: Path) -> None:
    source = open_source("synthetic", labels, "validation", {"contrast": {"size": 48}})
    assert source.subjects == SPLITS["validation"]
    assert source.endless
    head = read_subject(labels / "subject_12.nii.gz")
    expected = random_pair(head, np.random.default_rng(3), ContrastSettings(size=48))
    pair = source.pair(1, np.random.default_rng(3))
    np.testing.assert_array_equal(pair.target, expected.target)
    np.testing.assert_array_equal(pair.reference, expected.reference)
    assert source.subject(1) == source.volume(1) == "subject_12"


def test_splits_share_no_subject(labels: Path) -> None:
    whole = open_source("synthetic", labels, "all")
    names: tuple[Split, ...] = ("train", "validation", "test")
    assert [whole.split(name).subjects for name in names] == [SPLITS[name] for name in names]
    with pytest.raises(TrainingError, match="none of these 3 synthetic subjects is in the train split"):
        whole.split("test").split("train")


def test_sources_travel_to_workers(labels: Path) -> None:
    source = open_source("synthetic", labels, "test", {"contrast": {"size": 48}})
    copy: PairSource = pickle.loads(pickle.dumps(source))
    first, second = (one.pair(2, np.random.default_rng(0)) for one in (source, copy))
    np.testing.assert_array_equal(first.target, second.target)


def test_record_says_what_was_used(labels: Path) -> None:
    record = open_source("synthetic", labels, "test", {"preset": "clinical", "contrast": {"size": 48}}).describe()
    assert json.loads(json.dumps(record)) == record
    assert record["kind"] == "synthetic"
    assert record["folder"] == labels.name
    assert record["subjects"] == {"test": list(SPLITS["test"])}
    assert record["contrast"]["size"] == 48
    assert record["contrast"]["physics"] == 1


def test_contrast_is_a_preset_with_changes() -> None:
    assert SyntheticOptions().settings() == ContrastSettings()
    assert SyntheticOptions(anatomy="knee").settings() == KNEE
    changed = SyntheticOptions(preset="knee-clinical", contrast={"noise": [0.1, 0.2], "protocols": [["PD", "T2w"]]})
    assert changed.settings() == replace(PRESETS["knee-clinical"], noise=(0.1, 0.2), protocols=(("PD", "T2w"),))
    own = ContrastSettings(size=64)
    assert SyntheticOptions(contrast=own).settings() is own
    bad: dict[str, dict[str, Any]] = {
        "preset 'brain' is unknown; expected one of random": {"preset": "brain"},
        "contrast has no sise; expected some of size": {"contrast": {"sise": 64}},
        "are unknown; expected pairs of T1w": {"contrast": {"protocols": [["T3w", "T2w"]]}},
        "expected three parts that add up to 1": {"contrast": {"orientations": [1, 1, 1]}},
        "size is 0; it must be at least 1": {"contrast": {"size": 0}},
        "blurred is 5.0; it must be between 0 and 1": {"contrast": {"blurred": 5}},
        r"noise is \[0.0, 0.1\]; expected two numbers above 0": {"contrast": {"noise": [0, 0.1]}},
        r"noise is \[0.2, 0.1\]; expected two numbers above 0, the smaller first": {"contrast": {"noise": [0.2, 0.1]}},
        r"edge is \[0.9, 0.3\]; expected two widths in pixels": {"contrast": {"edge": [0.9, 0.3]}},
        r"edge is \[-1.0, 0.3\]; expected two widths in pixels": {"contrast": {"edge": [-1, 0.3]}},
        "contrast: size is 'big'; expected a whole number": {"contrast": {"size": "big"}},
        "contrast: protocols is 'PD'; expected a list of": {"contrast": {"protocols": "PD"}},
    }
    for message, options in bad.items():
        with pytest.raises(TrainingError, match=message):
            SyntheticOptions(**options)


def test_sources_that_cannot_be_opened_are_refused(labels: Path) -> None:
    with pytest.raises(TrainingError, match="need the folder of label maps"):
        open_source("synthetic", None)
    with pytest.raises(TrainingError, match="kind of data 'mat' is unknown; expected one of synthetic, fastmri"):
        open_source("mat", labels)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="synthetic data have no option cache; expected some of anatomy"):
        open_source("synthetic", labels, "train", {"cache": "x"})
    with pytest.raises(TrainingError, match="options of synthetic data are a ContrastSettings"):
        open_source("synthetic", labels, "train", ContrastSettings())
    with pytest.raises(TrainingError, match="split is 'tests'; expected one of train, validation, test, all"):
        open_source("synthetic", labels, "tests")  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="synthetic data: anatomy is 'dog'; expected brain or knee"):
        open_source("synthetic", labels, "train", {"anatomy": "dog"})
