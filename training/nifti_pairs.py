"""NIfTI volumes named as in the public collections IXI, BraTS and BIDS: two contrasts of each subject make a pair."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from minet_sdk.errors import TrainingError
from minet_sdk.files import is_volume_file, read_volume
from minet_sdk.training.array_cache import ArrayCache
from minet_sdk.training.pair_list import ListedPair, read_pair_list
from minet_sdk.training.pairs import record_of
from minet_sdk.training.splits import Part, Split, agreed_splits
from minet_sdk.training.stacks import SliceAxis, StackReader
from minet_sdk.training.subjects import joined, listed_subjects
from minet_sdk.training.volume_pairs import VolumePair, VolumePairs, choose_splits
from minet_sdk.volume import Volume

Layout = Literal["auto", "ixi", "brats", "bids", "list"]
Contrast = Literal["T1", "T1c", "T2", "PD", "FLAIR"]
"""T1c is T1 after contrast agent."""


@dataclass(frozen=True)
class NiftiOptions:
    """What to take from a folder of NIfTI files."""

    target: Contrast = "T2"
    reference: Contrast = "T1"
    layout: Layout = "auto"
    """How files are named; ``auto`` takes the one layout that fits, ``list`` the option pairs."""

    pairs: Path | None = None
    """Pair list, see `pair_list.read_pair_list`, of paths relative to the data folder, for files of any name."""

    slice_axis: SliceAxis = "auto"
    splits: Path | None = None
    """CSV with the columns subject and split; None draws 80 / 10 / 10 by name."""

    cache: Path | None = None
    """Folder for resampled volumes; None keeps the last used ones in memory."""


class Named(NamedTuple):
    """What a file's name says."""

    subject: str
    session: str
    contrast: Contrast


_ENDING = r"\.nii(?:\.gz)?$"
_IXI = re.compile(r"^(IXI\d+)-[A-Za-z]+-\d+-(T1|T2|PD)" + _ENDING)
_BRATS = re.compile(r"^(bra?ts\d+_\w+?)_(t1|t1ce|t2|flair)" + _ENDING, re.IGNORECASE)
_BRATS_2023 = re.compile(r"^(BraTS-[A-Za-z]+-\d+)(?:-(\d+))?-(t1n|t1c|t2w|t2f)" + _ENDING)
_BIDS = re.compile(
    r"^(sub-[A-Za-z0-9]+)(?:_(ses-[A-Za-z0-9]+))?((?:_[a-z]+-[A-Za-z0-9]+)*)_(T1w|T2w|PDw|FLAIR)" + _ENDING
)
_BRATS_CONTRAST: dict[str, Contrast] = {
    "t1": "T1", "t1ce": "T1c", "t2": "T2", "flair": "FLAIR", "t1n": "T1", "t1c": "T1c", "t2w": "T2", "t2f": "FLAIR",
}  # fmt: skip
_BIDS_CONTRAST: dict[str, Contrast] = {"T1w": "T1", "T2w": "T2", "PDw": "PD", "FLAIR": "FLAIR"}
_PLAIN: dict[str, Contrast] = {"T1": "T1", "T2": "T2", "PD": "PD"}


def ixi(path: Path) -> Named | None:
    """``IXI002-Guys-0828-T1.nii.gz``, in any folder."""
    match = _IXI.match(path.name)
    return Named(match[1], "", _PLAIN[match[2]]) if match else None


def brats(path: Path) -> Named | None:
    """``BraTS20_Training_001_t1ce.nii.gz``, ``BraTS2021_00000_t1.nii.gz`` or ``BraTS-GLI-00000-000-t2w.nii.gz``.

    The timepoint may be missing, as in ``BraTS-GoAT-00000-t1c.nii.gz``.
    """
    match = _BRATS_2023.match(path.name)
    if match:
        return Named(match[1], match[2] or "", _BRATS_CONTRAST[match[3]])
    match = _BRATS.match(path.name)
    return Named(match[1], "", _BRATS_CONTRAST[match[2].lower()]) if match else None


def bids(path: Path) -> Named | None:
    """``sub-01[/ses-1]/anat/sub-01[_ses-1][_run-1]_T1w.nii.gz`` below the dataset, not among its derivatives."""
    match = _BIDS.match(path.name)
    if match is None:
        return None
    subject, session, entities, suffix = match.groups()
    if path.parts[:-1] != tuple(part for part in (subject, session, "anat") if part):
        return None
    contrast = _BIDS_CONTRAST[suffix]
    return Named(subject, session or "", "T1c" if contrast == "T1" and "_ce-" in entities else contrast)


LAYOUTS: dict[str, Callable[[Path], Named | None]] = {"ixi": ixi, "brats": brats, "bids": bids}
"""By name: what a path relative to the data folder means, None if it belongs to another layout."""


@dataclass(frozen=True)
class NiftiLoader:
    """Two files."""

    target: Path
    reference: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """Both files."""
        return self.target, self.reference

    def load(self) -> tuple[Volume, Volume]:
        """Target and reference."""
        return read_volume(self.target), read_volume(self.reference)


@dataclass(frozen=True)
class _Found:
    name: str
    """Unique in the source."""

    subject: str
    loader: NiftiLoader


def open_pairs(path: Path | None, options: NiftiOptions, part: Part) -> VolumePairs:
    """Open a folder of NIfTI files.

    Every pair of the split is decoded once, to find its usable slices; with a cache folder only the first time.

    Raises:
        TrainingError: no folder, no or several layouts, or no subject with both contrasts.
        FileFormatError: a damaged file.
        MissingPackageError: nibabel, or for volumes on different grids SimpleITK, is not installed.
    """
    if path is None or not path.is_dir():
        raise TrainingError(f"NIfTI data: {path} is no folder; expected one with .nii or .nii.gz files in or below it")
    notes: list[str] = []
    layout = "list" if options.pairs is not None else options.layout
    if options.pairs is not None:
        pairs, given = _listed(path, options.pairs, notes)
    elif layout == "list":
        raise TrainingError("layout list: the option pairs must name a pair list")
    else:
        layout, named = _recognised(path, layout)
        pairs, given = _paired(named, options, notes), None
    splits = choose_splits([one.subject for one in pairs], options.splits, given)
    pairs = [one for one in pairs if part in ("all", splits[one.subject])]
    reader = StackReader(ArrayCache(options.cache), {one.name: one.loader for one in pairs}, options.slice_axis)
    volumes: list[VolumePair] = []
    for one in pairs:
        survey = reader.survey(one.name)
        record = {"reference": one.loader.reference.name, **survey["record"]}
        volumes.append(VolumePair(one.name, one.subject, tuple(survey["slices"]), one.name, record))
    resampled = sum(volume.record["reference_resampled"] for volume in volumes)
    if resampled:
        notes.append(f"{resampled} of {len(volumes)} references were resampled onto their target's grid")
    empty = [volume.name for volume in volumes if not volume.slices]
    if empty:
        notes.append(f"{len(empty)} volumes without usable slices left out, such as {empty[0]}")
    return VolumePairs(
        "nifti",
        [volume for volume in volumes if volume.slices],
        splits,
        reader,
        record={"folder": path.name, "layout": layout, "options": record_of(options)},
        notes=notes,
        part=part,
    )


def _recognised(folder: Path, layout: str) -> tuple[str, dict[Path, Named]]:
    """The layout of a folder, and what its files are."""
    files = [path for path in sorted(folder.rglob("*")) if path.name.endswith((".nii", ".nii.gz"))]
    chosen = LAYOUTS if layout == "auto" else {layout: LAYOUTS[layout]}
    meanings = {
        name: {path: meaning for path in files if (meaning := rule(path.relative_to(folder))) is not None}
        for name, rule in chosen.items()
    }
    fitting = [name for name, named in meanings.items() if named]
    if len(fitting) != 1:
        seen = f"such as {files[0].name}" if files else "none at all"
        what = "several layouts" if fitting else "no layout"
        raise TrainingError(
            f"{folder}: {what} of {', '.join(fitting or chosen)} among {len(files)} NIfTI files ({seen});"
            " choose one (option layout), or name the files in a pair list (option pairs)"
        )
    return fitting[0], meanings[fitting[0]]


def _paired(named: dict[Path, Named], options: NiftiOptions, notes: list[str]) -> list[_Found]:
    """One pair for each session of each subject that has both contrasts."""
    if options.target == options.reference:
        raise TrainingError(f"target and reference are both {options.target}; choose two contrasts")
    sessions: dict[tuple[str, str], dict[Contrast, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path, meaning in named.items():
        sessions[meaning.subject, meaning.session][meaning.contrast].append(path)
    pairs: list[_Found] = []
    lacking = 0
    for (subject, session), images in sorted(sessions.items()):
        name = f"{subject}/{session}" if session else subject
        targets, references = images.get(options.target, []), images.get(options.reference, [])
        if not targets or not references:
            lacking += 1
            continue
        notes += [
            f"{name}: {len(several)} {contrast} images, {several[0].name} is used"
            for contrast, several in ((options.target, targets), (options.reference, references))
            if len(several) > 1
        ]
        pairs.append(_Found(name, subject, NiftiLoader(targets[0], references[0])))
    if lacking:
        notes.append(
            f"{lacking} of {len(sessions)} sessions left out: not both {options.target} and {options.reference}"
        )
    if not pairs:
        contrasts = sorted({meaning.contrast for meaning in named.values()})
        raise TrainingError(
            f"no subject has both {options.target} and {options.reference}; there are {', '.join(contrasts)}"
            " (options target, reference)"
        )
    return pairs


def _listed(folder: Path, pair_list: Path, notes: list[str]) -> tuple[list[_Found], dict[str, Split] | None]:
    """Pairs of a list."""
    rows = read_pair_list(pair_list)
    files: list[tuple[str, str]] = []
    for row in rows:
        for name in (row.target, row.reference):
            if not is_volume_file(folder / name) or not (folder / name).is_file():
                raise TrainingError(f"{pair_list}, line {row.line}: {folder / name} is no volume file that exists")
        both = str((folder / row.target).resolve()), str((folder / row.reference).resolve())
        if both in files:
            line = rows[files.index(both)].line
            raise TrainingError(f"{pair_list}, line {row.line}: the pair of line {line} once more; keep one row")
        files.append(both)
    subjects = listed_subjects(rows, files, str(pair_list)) or _guessed_subjects(rows, files, notes)
    several = Counter(row.target for row in rows)
    pairs = [
        _Found(
            row.target if several[row.target] == 1 else f"{row.target} with {row.reference}",
            subject,
            NiftiLoader(folder / row.target, folder / row.reference),
        )
        for row, subject in zip(rows, subjects, strict=True)
    ]
    return pairs, agreed_splits(
        ((one.subject, row.split) for one, row in zip(pairs, rows, strict=True)), str(pair_list)
    )


def _guessed_subjects(rows: Sequence[ListedPair], files: Sequence[tuple[str, str]], notes: list[str]) -> list[str]:
    """A subject for each pair of a list without any; pairs that share a file or a subject in their names are one.

    It is called as the file names tell, else as its first target by name.
    """
    named = [
        [name for path in (row.target, row.reference) if (name := _subject_in_name(Path(path))) is not None]
        for row in rows
    ]
    numbers = joined(
        [[*both, *(f"subject {name}" for name in names)] for both, names in zip(files, named, strict=True)]
    )
    told: dict[int, list[str]] = defaultdict(list)
    targets: dict[int, list[str]] = defaultdict(list)
    for number, row, names in zip(numbers, rows, named, strict=True):
        told[number] += names
        targets[number].append(row.target)
    guessed = sum(not told[number] for number in targets)
    notes.append(
        f"the pair list names no subjects: {len(targets) - guessed} are told by file names, {guessed} guessed, one for"
        " each set of pairs that share a file; a column subject would settle it"
    )
    return [min(told[number] or targets[number]) for number in numbers]


def _subject_in_name(path: Path) -> str | None:
    """The subject by the rules of any layout, in whatever folder its data set lies."""
    for start in range(len(path.parts)):
        for rule in LAYOUTS.values():
            if (meaning := rule(Path(*path.parts[start:]))) is not None:
                return meaning.subject
    return None
