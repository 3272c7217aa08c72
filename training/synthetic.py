"""Synthetic pairs: anatomies, true or made up, in contrasts drawn on the fly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minet_sdk.errors import TrainingError
from minet_sdk.training.contrast import PRESETS, ContrastSettings, random_pair
from minet_sdk.training.knee import Knee, make_knees
from minet_sdk.training.labels import SPLITS, Anatomy, read_split
from minet_sdk.training.pairs import Pair, PairSource, record_of
from minet_sdk.training.splits import Part, Split
from minet_sdk.training.typed import typed_fields

BodyPart = Literal["brain", "knee"]


@dataclass(frozen=True)
class SyntheticOptions:
    """What synthetic pairs show."""

    anatomy: BodyPart = "brain"
    """Heads from label maps, or knees of made-up shape, see `knee`."""

    preset: str = ""
    """One of `contrast.PRESETS`; empty takes ``random`` for brains and ``knee`` for knees."""

    contrast: Mapping[str, Any] | ContrastSettings = field(default_factory=dict[str, Any])
    """Changes to the preset by name, or settings that replace it."""

    def __post_init__(self) -> None:
        """Refuse settings that there are not."""
        self.settings()

    def settings(self) -> ContrastSettings:
        """The settings that are meant.

        Raises:
            TrainingError: unknown preset or name, or a value that cannot be drawn from.
        """
        if isinstance(self.contrast, ContrastSettings):
            return self.contrast
        preset = self.preset or {"brain": "random", "knee": "knee"}[self.anatomy]
        if preset not in PRESETS:
            raise TrainingError(f"contrast preset '{preset}' is unknown; expected one of {', '.join(PRESETS)}")
        return replace(PRESETS[preset], **typed_fields(ContrastSettings, self.contrast, "contrast"))


class SyntheticPairs(PairSource):
    """An endless source: every call of `pair` makes another slice of the subject.

    Args:
        subjects: in order.
        settings: how contrasts vary.
        splits: split of each subject.
        record: where the anatomies come from.
    """

    endless = True

    def __init__(
        self,
        subjects: Sequence[Anatomy],
        settings: ContrastSettings,
        splits: Mapping[str, Split],
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self._anatomies, self.settings = list(subjects), settings
        self._splits, self._record = dict(splits), dict(record or {})

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(one.name for one in self._anatomies)

    def __len__(self) -> int:
        return len(self._anatomies)

    def pair(self, index: int, rng: np.random.Generator) -> Pair:
        """Another slice of subject ``index``."""
        return random_pair(self._anatomies[index], rng, self.settings)

    def subject(self, index: int) -> str:
        """Whom a pair shows."""
        return self._anatomies[index].name

    def volume(self, index: int) -> str:
        """The subject: slices are made one by one."""
        return self.subject(index)

    def split(self, name: Split) -> "SyntheticPairs":
        """Those of its subjects that are in a split."""
        members = [one for one in self._anatomies if self._splits[one.name] == name]
        if not members:
            raise TrainingError(f"none of these {len(self)} synthetic subjects is in the {name} split; open that split")
        return SyntheticPairs(members, self.settings, self._splits, self._record)

    def describe(self) -> dict[str, Any]:
        """See `PairSource.describe`."""
        by_split: dict[str, list[str]] = {}
        for name in self.subjects:
            by_split.setdefault(self._splits[name], []).append(name)
        return {
            "kind": "synthetic",
            **self._record,
            "contrast": record_of(self.settings),
            "subjects": by_split,
            "notes": list(self.notes),
        }


def open_pairs(path: Path | None, options: SyntheticOptions, part: Part) -> SyntheticPairs:
    """Open label maps of heads in the folder ``path``, or knees, which need none.

    Raises:
        TrainingError: a label map is missing, or no folder is given.
    """
    settings = options.settings()
    parts: tuple[Split, ...] = tuple(SPLITS) if part == "all" else (part,)
    if options.anatomy == "knee":
        knees: list[tuple[Split, Knee]] = [(split, knee) for split in parts for knee in make_knees(split)]
        splits: dict[str, Split] = {knee.name: split for split, knee in knees}
        return SyntheticPairs([knee for _, knee in knees], settings, splits, {"anatomy": "knee, procedural"})
    if path is None:
        raise TrainingError("synthetic brains need the folder of label maps subject_01.nii.gz ... subject_16.nii.gz")
    heads: list[Anatomy] = [subject for split in parts for subject in read_split(path, split)]
    named: dict[str, Split] = {name: split for split, names in SPLITS.items() for name in names}
    return SyntheticPairs(heads, settings, named, {"anatomy": "brain", "folder": path.name})
