"""Splits by subject: drawn the same everywhere, complete, disjoint, and never at odds with what the data say."""

from pathlib import Path

import pytest

from minet_sdk.errors import TrainingError
from minet_sdk.training.splits import agreed_splits, draw_splits, read_splits

NAMES = [f"subject-{number}" for number in range(40)]


def test_everyone_is_drawn_once_in_the_right_parts() -> None:
    splits = draw_splits(NAMES)
    assert set(splits) == set(NAMES)
    assert sorted(map(list(splits.values()).count, ("train", "validation", "test"))) == [4, 4, 32]


def test_order_and_repetition_change_nothing() -> None:
    assert draw_splits(reversed([*NAMES, *NAMES])) == draw_splits(NAMES)


@pytest.mark.parametrize(("count", "parts"), [(1, [1, 0, 0]), (2, [2, 0, 0]), (3, [1, 1, 1]), (5, [3, 1, 1])])
def test_few_subjects_leave_no_split_empty_if_they_can(count: int, parts: list[int]) -> None:
    drawn = list(draw_splits(NAMES[:count]).values())
    assert [drawn.count(name) for name in ("train", "validation", "test")] == parts


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    bad = {
        "subject,part\na,train\n": "has the columns subject, part; expected subject, split",
        "subject,split\na,training\n": "line 2: split 'training' is unknown",
        "subject,split\na,train\na,test\n": "line 3: subject a stands there twice",
        "subject,split\nb,train\n": "names no split for a",
    }
    for text, message in bad.items():
        path.write_text(text)
        with pytest.raises(TrainingError, match=message):
            read_splits(path, ["a"])
    with pytest.raises(TrainingError, match="no readable CSV file"):
        read_splits(tmp_path / "none.csv", ["a"])
    path.write_text("\ufeffsplit,subject,remark\ntest, a ,x\n", encoding="utf-8")
    assert read_splits(path, ["a"]) == {"a": "test"}


def test_volumes_of_a_subject_must_agree() -> None:
    assert agreed_splits([("a", "train"), ("a", "train"), ("b", "test")], "list") == {"a": "train", "b": "test"}
    assert agreed_splits([("a", None)], "list") is None
    with pytest.raises(TrainingError, match="list: subject a is in the splits train and test"):
        agreed_splits([("a", "train"), ("a", "test")], "list")
    with pytest.raises(TrainingError, match="no split for b, but for others"):
        agreed_splits([("a", "train"), ("b", None)], "list")
