"""DICOM studies below a folder: the two series of each are found by their contrast, the patient is the subject."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from minet_sdk.dicom import Contrast, Scan, Series, contrast_of, load, scan, space_conflict
from minet_sdk.dicom.contrast import is_derived, is_localizer
from minet_sdk.dicom.geometry import ordered_grid
from minet_sdk.dicom.header import Reader
from minet_sdk.dicom.pair import GUIDES, find_pair
from minet_sdk.errors import DicomError, TrainingError
from minet_sdk.training.array_cache import ArrayCache
from minet_sdk.training.pairs import record_of
from minet_sdk.training.splits import Part
from minet_sdk.training.stacks import SliceAxis, StackReader
from minet_sdk.training.volume_pairs import VolumePair, VolumePairs, choose_splits
from minet_sdk.volume import Volume

PSEUDONYM_LENGTH = 12


@dataclass(frozen=True)
class DicomOptions:
    """What to take from a folder of studies."""

    target: Contrast = Contrast.T2
    reference: Contrast | None = None
    """None takes the contrast that `dicom.pair.GUIDES` names first for the target and the study has."""

    target_name: str | None = None
    """A series number or a part of a SeriesDescription, as for `dicom.find_pair`; with reference_name it decides
    instead of the contrasts."""

    reference_name: str | None = None
    slice_axis: SliceAxis = "slices"
    splits: Path | None = None
    """CSV with the columns subject (`pseudonym` of the PatientID) and split; None draws 80 / 10 / 10."""

    cache: Path | None = None
    """Folder for decoded volumes; None keeps the last used ones in memory."""

    def __post_init__(self) -> None:
        """Take contrasts by name, as settings files hold them."""
        try:
            object.__setattr__(self, "target", Contrast(self.target))
            if self.reference is not None:
                object.__setattr__(self, "reference", Contrast(self.reference))
        except ValueError as error:
            raise TrainingError(f"{error}; expected one of {', '.join(Contrast)}") from error
        if (self.target_name is None) != (self.reference_name is None):
            raise TrainingError("target_name and reference_name go together: give both or none")


def pseudonym(patient: str) -> str:
    """How a patient is called in records: a hash, since checkpoints are passed on."""
    return f"patient-{hashlib.sha256(patient.encode()).hexdigest()[:PSEUDONYM_LENGTH]}"


@dataclass(frozen=True)
class DicomLoader:
    """Two series."""

    target: Series
    reference: Series

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file of both series."""
        return *self.target.paths, *self.reference.paths

    def load(self) -> tuple[Volume, Volume]:
        """Target and reference."""
        return load(self.target).volume, load(self.reference).volume


def open_pairs(path: Path | None, options: DicomOptions, part: Part) -> VolumePairs:
    """Open a folder of studies.

    Unlike `dicom.find_pair`, which looks for a reference that is finer than a target to be restored, both series have
    full resolution here: the low resolution is made from the target.

    Raises:
        TrainingError: no folder, or no study with such a pair.
        DicomError: a damaged file.
    """
    if path is None or not path.is_dir():
        raise TrainingError(f"DICOM data: {path} is no folder; expected one with DICOM files in or below it")
    studies: dict[str, list[Series]] = defaultdict(list)
    for series in scan(path).series:
        studies[str(series.header.get("StudyInstanceUID", ""))].append(series)
    notes: list[str] = []
    found: dict[str, tuple[str, DicomLoader]] = {}
    for number, (study, series) in enumerate(sorted(studies.items()), start=1):
        chosen = _pair(Scan(path, tuple(series), ()), options)
        if isinstance(chosen, str):
            notes.append(f"study {number} of {len(studies)} left out: {chosen}")
            continue
        patient = str(Reader().dataset(chosen.target.paths[0]).get("PatientID") or "")
        if not patient:
            notes.append(f"study {number} of {len(studies)} has no PatientID: it counts as a patient of its own")
        found[study] = pseudonym(patient or study), chosen
    if not found:
        raise TrainingError(f"{path}: no study with a pair of series; {notes[0]}")
    splits = choose_splits([subject for subject, _ in found.values()], options.splits)
    found = {study: one for study, one in found.items() if part in ("all", splits[one[0]])}
    reader = StackReader(ArrayCache(options.cache), {key: one for key, (_, one) in found.items()}, options.slice_axis)
    volumes: list[VolumePair] = []
    for number, (study, (subject, loader)) in enumerate(found.items(), start=1):
        survey = reader.survey(study)
        contrasts = [str(contrast_of(one.header)) for one in (loader.target, loader.reference)]
        record = {"target_contrast": contrasts[0], "reference_contrast": contrasts[1], **survey["record"]}
        volumes.append(VolumePair(f"{subject}/{number}", subject, tuple(survey["slices"]), study, record))
    resampled = sum(volume.record["reference_resampled"] for volume in volumes)
    if resampled:
        notes.append(f"{resampled} of {len(volumes)} references were resampled onto their target's grid")
    return VolumePairs(
        "dicom",
        volumes,
        splits,
        reader,
        record={"folder": path.name, "options": record_of(options)},
        notes=notes,
        part=part,
    )


def _pair(study: Scan, options: DicomOptions) -> DicomLoader | str:
    """The pair of one study, or why there is none."""
    if options.target_name is not None:
        try:
            pair = find_pair(study, options.target_name, options.reference_name)
        except DicomError as error:
            return str(error)
        return DicomLoader(pair.target, pair.reference)
    usable = [series for series in study.series if _is_usable(series)]
    targets = [series for series in usable if contrast_of(series.header) is options.target]
    wanted = (options.reference,) if options.reference is not None else GUIDES.get(options.target, ())
    for contrast in wanted:
        pairs = [
            DicomLoader(target, reference)
            for target in targets
            for reference in usable
            if contrast_of(reference.header) is contrast and space_conflict(target, reference) is None
        ]
        if len(pairs) == 1:
            return pairs[0]
        if pairs:
            return f"{len(pairs)} pairs of {contrast} and {options.target}; name them (target_name, reference_name)"
    listing = "; ".join(f"{series.label}: {contrast_of(series.header)}" for series in study.series)
    names = " or ".join(str(contrast) for contrast in wanted) or "(no contrast guides it; give reference)"
    return f"no {options.target} with {names} in one space. Series: {listing}"


def _is_usable(series: Series) -> bool:
    """Whether a series is an even stack of original images."""
    if is_derived(series.header) or is_localizer(series.header):
        return False
    try:
        ordered_grid(series)
    except DicomError:
        return False
    return True
