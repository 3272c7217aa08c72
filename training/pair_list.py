"""A CSV file that says which volume guides which."""

import csv
from dataclasses import dataclass
from pathlib import Path

from minet_sdk.errors import TrainingError
from minet_sdk.training.splits import Split, as_split

_REFERENCE = ("reference", "pdwi")
_TARGET = ("target", "fspdwi")


@dataclass(frozen=True)
class ListedPair:
    """One row."""

    line: int
    """Line in the file, from 1."""

    reference: str
    target: str
    subject: str | None = None
    split: Split | None = None


def read_pair_list(path: Path) -> list[ListedPair]:
    """Read a pair list.

    With a header line the columns are ``reference`` and ``target`` (also called ``PDWI`` and ``FSPDWI``, as in lists
    for fastMRI that are in use), and, if wanted, ``subject`` and ``split``. Without one the first column is the
    reference, the second the target, and others are ignored.

    Raises:
        TrainingError: not such a file, or a row without two names.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(line, [cell.strip() for cell in row]) for line, row in enumerate(csv.reader(file), start=1)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(
            f"{path}: no readable pair list; expected CSV with the columns reference, target"
        ) from error
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        raise TrainingError(f"{path}: an empty pair list; expected CSV with the columns reference, target")
    columns = {name.lower(): position for position, name in enumerate(rows[0][1])}
    reference = next((columns[name] for name in _REFERENCE if name in columns), None)
    target = next((columns[name] for name in _TARGET if name in columns), None)
    if (reference is None) != (target is None):
        raise TrainingError(f"{path}: has the columns {', '.join(rows[0][1])}; expected reference and target")
    if reference is None or target is None:
        reference, target, columns = 0, 1, {}
    else:
        rows = rows[1:]

    def cell(row: list[str], position: int | None) -> str | None:
        return row[position] or None if position is not None and position < len(row) else None

    listed: list[ListedPair] = []
    for line, row in rows:
        names = cell(row, reference), cell(row, target)
        if names[0] is None or names[1] is None:
            raise TrainingError(f"{path}, line {line}: expected the names of a reference and of a target, got {row}")
        split = cell(row, columns.get("split"))
        listed.append(
            ListedPair(
                line,
                names[0],
                names[1],
                cell(row, columns.get("subject")),
                as_split(split, f"{path}, line {line}") if split else None,
            )
        )
    return listed
