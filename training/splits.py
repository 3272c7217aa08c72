"""Which subject is in which split: given by the data or by a file, else drawn by the subject's name.

A subject never crosses a split. Drawing by name gives the same answer in every folder order and on every machine.
"""

import csv
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

from minet_sdk.errors import TrainingError

Split = Literal["train", "validation", "test"]
Part = Literal["train", "validation", "test", "all"]
"""A split, or everything."""

FRACTIONS: dict[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""Parts of the subjects that are drawn for each split where nothing else says so."""

FEWEST = 3
"""Subjects that can be drawn into three splits."""


def draw_splits(subjects: Iterable[str], fractions: Mapping[Split, float] = FRACTIONS) -> dict[str, Split]:
    """Draw a split for each subject, at least one subject for each.

    Args:
        subjects: names, in any order.
        fractions: parts of the splits that are drawn from, in order; they add up to 1.

    Returns:
        Split by subject; everyone is in the first split if there are fewer subjects than splits.
    """
    ranked = sorted(set(subjects), key=lambda name: hashlib.sha256(name.encode()).digest())
    names = list(fractions)
    if len(ranked) < len(names):
        return dict.fromkeys(ranked, names[0])
    others: dict[Split, int] = {name: max(1, round(fractions[name] * len(ranked))) for name in names[1:]}
    drawn: dict[str, Split] = {}
    for name, count in others.items():
        drawn |= dict.fromkeys(ranked[len(drawn) : len(drawn) + count], name)
    return {subject: drawn.get(subject, names[0]) for subject in ranked}


def read_splits(path: Path, subjects: Iterable[str]) -> dict[str, Split]:
    """Splits from a CSV file with the columns ``subject`` and ``split``.

    Raises:
        TrainingError: another form, an unknown split, a subject twice, or one of ``subjects`` is not named.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: no readable CSV file; expected the columns subject, split") from error
    if not {"subject", "split"} <= set(columns):
        raise TrainingError(f"{path}: has the columns {', '.join(columns)}; expected subject, split")
    splits: dict[str, Split] = {}
    for line, row in enumerate(rows, start=2):
        subject = (row["subject"] or "").strip()
        if subject in splits:
            raise TrainingError(f"{path}, line {line}: subject {subject} stands there twice; keep one")
        splits[subject] = as_split((row["split"] or "").strip(), f"{path}, line {line}")
    missing = sorted(set(subjects) - set(splits))
    if missing:
        raise TrainingError(f"{path}: names no split for {', '.join(missing[:5])} ({len(missing)} missing); add them")
    return splits


def as_split(name: str, where: str) -> Split:
    """A split from its name.

    Raises:
        TrainingError: there is none of this name.
    """
    for split in get_args(Split):
        if name == split:
            return split
    raise TrainingError(f"{where}: split '{name}' is unknown; expected train, validation or test")


def agreed_splits(named: Iterable[tuple[str, Split | None]], where: str) -> dict[str, Split] | None:
    """Splits as each volume of a subject names them; None if none does.

    Raises:
        TrainingError: some name one and some do not, or a subject's volumes name different ones.
    """
    agreed: dict[str, Split] = {}
    silent: list[str] = []
    for subject, split in named:
        if split is None:
            silent.append(subject)
        elif agreed.setdefault(subject, split) != split:
            raise TrainingError(
                f"{where}: subject {subject} is in the splits {agreed[subject]} and {split}; choose one"
            )
    if agreed and silent:
        raise TrainingError(f"{where}: no split for {silent[0]}, but for others; give one for all or for none")
    return agreed or None
