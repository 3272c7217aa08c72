"""Whom the pairs of a list show: as the list says, else found by what pairs share. No subject may cross a split."""

from collections.abc import Iterable, Sequence

from minet_sdk.errors import TrainingError
from minet_sdk.training.pair_list import ListedPair


def joined(groups: Sequence[Iterable[str]]) -> list[int]:
    """For each group of things the number of the first that it is joined to, by a thing of both or over others."""
    first = list(range(len(groups)))
    owner: dict[str, int] = {}

    def root(number: int) -> int:
        while first[number] != number:
            number = first[number]
        return number

    for number, group in enumerate(groups):
        for thing in group:
            one, other = sorted((root(number), root(owner.setdefault(thing, number))))
            first[other] = one
    return [root(number) for number in range(len(groups))]


def listed_subjects(rows: Sequence[ListedPair], shared: Sequence[Iterable[str]], where: str) -> list[str] | None:
    """The subject that a list names for each of its pairs; None if it names none.

    Args:
        rows: of the list.
        shared: of each row what only one subject can have, such as its files, as a message is to name them.
        where: the list.

    Raises:
        TrainingError: some rows name a subject and some do not, or rows of different subjects share something.
    """
    named = [row.subject for row in rows if row.subject]
    if not named:
        return None
    owner: dict[str, ListedPair] = {}
    for row, things in zip(rows, shared, strict=True):
        if not row.subject:
            raise TrainingError(
                f"{where}, line {row.line}: no subject, but others have one; give it for all or for none"
            )
        for thing in things:
            other = owner.setdefault(thing, row)
            if other.subject != row.subject:
                raise TrainingError(
                    f"{where}, lines {other.line} and {row.line}: subjects {other.subject} and {row.subject} share"
                    f" {thing}; give both rows one subject"
                )
    return named
