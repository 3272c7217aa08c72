"""Find the two series of a study that belong together: a coarse target and the finer reference that guides it.

Nothing is guessed: unless exactly one pair fits, the error lists what there is.
"""

from dataclasses import dataclass
from itertools import product

from minet_sdk.dicom.contrast import Contrast, contrast_of, is_derived, is_localizer
from minet_sdk.dicom.geometry import ordered_grid, unsupported
from minet_sdk.dicom.scan import Scan, Series
from minet_sdk.errors import DicomError
from minet_sdk.resample import times_finer

GUIDES = {
    Contrast.T2: (Contrast.T1, Contrast.PD),
    Contrast.FLAIR: (Contrast.T1, Contrast.PD),
    Contrast.FS_PD: (Contrast.PD, Contrast.T1),
}
"""Target contrasts, and which reference contrasts can guide each."""

FINER = 1.25
"""A reference's pixels are smaller than the target's by at least this factor, or there is nothing to gain."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two series of one study in one patient space."""

    target: Series
    reference: Series

    reason: str
    """Why these two, in one line."""


def find_pair(scan: Scan, target: str | None = None, reference: str | None = None) -> Pair:
    """Choose target and reference of a study.

    Args:
        scan: the study's series.
        target: which series to restore: a SeriesInstanceUID, a SeriesNumber or a part of a SeriesDescription. A series
            named like this may have any contrast and spacing. None chooses by contrast and spacing.
        reference: the same for the series that guides it.

    Raises:
        DicomError: a name fits no or several series, no pair or several pairs fit, or the two do not share a space.
    """
    candidates = [series for series in scan.series if _excluded(series) is None]
    targets = candidates if target is None else [_named(scan, candidates, target, "target")]
    references = candidates if reference is None else [_named(scan, candidates, reference, "reference")]
    pairs = [
        pair
        for pair in product(targets, references)
        if _fits(*pair, by_target=target is None, by_reference=reference is None)
    ]
    if target is not None and reference is not None:
        conflict = "they are the same series" if not pairs else space_conflict(*pairs[0])
        if conflict is not None:
            raise DicomError(f"{targets[0].label} and {references[0].label} cannot be paired: {conflict}")
    if len(pairs) == 1:
        return Pair(*pairs[0], reason=_reason(*pairs[0]))
    listing = "; ".join(_describe(series) for series in scan.series)
    found = "no pair" if not pairs else f"{len(pairs)} possible pairs"
    raise DicomError(
        f"{scan.folder}: {found} of a target (T2, FLAIR or FS-PD) and a finer reference (T1 or PD) of one frame of"
        f" reference; name them with --target and --reference. Series: {listing}"
    )


def only_series(scan: Scan, role: str) -> Series:
    """The one MR series of a folder that was given for one role.

    Args:
        scan: the folder's series.
        role: ``target`` or ``reference``, for the message.

    Raises:
        DicomError: no MR series, or several.
    """
    if len(scan.series) == 1:
        series = scan.series[0]
        reason = unsupported(series)
        if reason is not None:
            raise DicomError(f"{scan.folder}: {series.label}: {reason}")
        return series
    usable = [series for series in scan.series if _excluded(series) is None]
    if len(usable) == 1:
        return usable[0]
    listing = "; ".join(_describe(series) for series in scan.series)
    raise DicomError(
        f"{scan.folder}: expected one MR series as {role}, found {len(usable)};"
        f" give a folder that holds only that series. Series: {listing}"
    )


def space_conflict(target: Series, reference: Series) -> str | None:
    """Why two series do not share one patient space; None if they do."""
    for keyword, what in (("StudyInstanceUID", "study"), ("FrameOfReferenceUID", "frame of reference")):
        a, b = target.header.get(keyword), reference.header.get(keyword)
        if not a or not b:
            return f"{keyword} is missing, so nothing says that their positions are comparable"
        if a != b:
            return f"they belong to different {'studies' if what == 'study' else 'frames of reference'}"
    return None


def _excluded(series: Series) -> str | None:
    """Why a series is no candidate; None if it is one."""
    reason = unsupported(series)
    if reason is not None:
        return reason
    if is_derived(series.header):
        return "derived"
    if is_localizer(series.header):
        return "localizer"
    try:
        ordered_grid(series)
    except DicomError as error:
        return str(error).removeprefix(f"{series.label}: ")
    return None


def _named(scan: Scan, candidates: list[Series], name: str, role: str) -> Series:
    """The series that a name means, looked for among the candidates first, then among all."""
    for pool in (candidates, list(scan.series)):
        for matches in (
            [series for series in pool if series.uid == name],
            [series for series in pool if str(series.number) == name.strip()],
            [series for series in pool if name.lower() in series.description.lower()],
        ):
            if len(matches) == 1:
                reason = unsupported(matches[0])
                if reason is not None:
                    raise DicomError(f"{role} {matches[0].label}: {reason}")
                return matches[0]
            if matches:
                listing = "; ".join(_describe(series) for series in matches)
                raise DicomError(f"{role} '{name}' means {len(matches)} series: {listing}; give a SeriesInstanceUID")
    listing = "; ".join(_describe(series) for series in scan.series)
    raise DicomError(f"{role} '{name}' is no SeriesInstanceUID, number or description here. Series: {listing}")


def _fits(target: Series, reference: Series, *, by_target: bool, by_reference: bool) -> bool:
    """Whether two series can be target and reference; what the user named is not judged by contrast."""
    if target is reference:
        return False
    if not by_target and not by_reference:
        return True
    if space_conflict(target, reference) is not None:
        return False
    guides = GUIDES.get(contrast_of(target.header), ())
    known = contrast_of(reference.header)
    if by_target and by_reference:
        right = known in guides
    elif by_target:
        right = bool(guides)
    else:
        right = known in (guides or (Contrast.T1, Contrast.PD))
    return right and _ratio(target, reference) >= FINER


def _ratio(target: Series, reference: Series) -> float:
    (coarse, _), (fine, _) = ordered_grid(target), ordered_grid(reference)
    return times_finer(fine, coarse)


def _describe(series: Series) -> str:
    """One series for a list: label, contrast, size, and why it is no candidate."""
    reason = _excluded(series)
    if reason is not None:
        return f"{series.label}: {reason}"
    grid, _ = ordered_grid(series)
    size = f"{grid.shape[1]} x {grid.shape[2]} at {grid.spacing[1]:.2f} mm"
    return f"{series.label}: {contrast_of(series.header)}, {size}"


def _reason(target: Series, reference: Series) -> str:
    """What was chosen and why."""
    return (
        f"{contrast_of(target.header)} target {target.label} guided by {contrast_of(reference.header)} reference"
        f" {reference.label}, {_ratio(target, reference):.2f} times finer in plane"
    )
