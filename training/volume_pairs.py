"""Pairs of volumes from files: slices matched by index, splits by subject."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minet_sdk.errors import TrainingError
from minet_sdk.training.pairs import Kind, Pair, PairSource
from minet_sdk.training.splits import FEWEST, Part, Split, draw_splits, read_splits


@dataclass(frozen=True)
class VolumePair:
    """A target volume and its reference."""

    name: str
    """Unique in its source."""

    subject: str
    slices: tuple[int, ...]
    """Indices of the slices that are used, in both volumes."""

    key: str
    """How the reader finds it."""

    record: dict[str, Any] = field(default_factory=dict[str, Any])
    """What was done to it, for the checkpoint."""


class Reader(Protocol):
    """Reads slices. Picklable."""

    def read(self, volume: VolumePair, index: int) -> Pair:
        """Slice ``index`` of both volumes."""
        ...


class VolumePairs(PairSource):
    """Slices of volumes in files.

    Args:
        kind: name in the record.
        volumes: what there is, in order.
        splits: split of every subject.
        reader: how a slice is read.
        record: of folder and options.
        notes: see `PairSource`.
        part: which split to take.

    Raises:
        TrainingError: there is no volume, or none of this split.
    """

    def __init__(
        self,
        kind: Kind,
        volumes: Iterable[VolumePair],
        splits: Mapping[str, Split],
        reader: Reader,
        *,
        record: Mapping[str, Any],
        notes: Iterable[str] = (),
        part: Part = "all",
    ) -> None:
        self.kind: Kind = kind
        found = tuple(volumes)
        self._volumes = tuple(one for one in found if part == "all" or splits[one.subject] == part)
        self._splits, self._reader, self._record = dict(splits), reader, dict(record)
        self.notes = tuple(notes)
        self._starts = np.cumsum([0, *(len(one.slices) for one in self._volumes)])
        if not len(self):
            advice = "open them as a whole ('all') or" if len(splits) < FEWEST else ""
            raise TrainingError(
                f"{kind} data in {record.get('folder')} have no usable slice of the {part} split among"
                f" {len(splits)} subjects; {advice} name the splits in a CSV file (option splits)".replace("  ", " ")
            )

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(dict.fromkeys(one.subject for one in self._volumes))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def pair(self, index: int, rng: np.random.Generator) -> Pair:
        """Slice ``index``, counted over all volumes."""
        volume, position = self._locate(index)
        return self._reader.read(volume, volume.slices[position])

    def subject(self, index: int) -> str:
        """Whom a pair shows."""
        return self._locate(index)[0].subject

    def volume(self, index: int) -> str:
        """Name of the target volume."""
        return self._locate(index)[0].name

    def split(self, name: Split) -> "VolumePairs":
        """Those of its subjects that are in a split."""
        return VolumePairs(
            self.kind,
            self._volumes,
            self._splits,
            self._reader,
            record=self._record,
            notes=self.notes,
            part=name,
        )

    def describe(self) -> dict[str, Any]:
        """See `PairSource.describe`."""
        by_split: dict[str, list[str]] = {}
        for subject in self.subjects:
            by_split.setdefault(self._splits[subject], []).append(subject)
        return {
            "kind": self.kind,
            **self._record,
            "subjects": by_split,
            "slices": len(self),
            "volumes": {one.name: {"slices": len(one.slices), **one.record} for one in self._volumes},
            "notes": list(self.notes),
        }

    def _locate(self, index: int) -> tuple[VolumePair, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._volumes[which], index - int(self._starts[which])


def choose_splits(
    subjects: Iterable[str], file: Path | None, given: Mapping[str, Split] | None = None
) -> dict[str, Split]:
    """Splits from a CSV file, else as the data themselves say, else drawn by name."""
    names = list(subjects)
    if file is not None:
        return read_splits(file, names)
    return dict(given) if given is not None else draw_splits(names)
