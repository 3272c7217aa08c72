"""Which contrast a series has, from how it was acquired; what it is called only decides where that is silent."""

import re
from enum import StrEnum

from pydicom.dataset import Dataset

from minet_sdk.dicom.header import upper_strings


class Contrast(StrEnum):
    """The contrasts that pairing tells apart."""

    T1 = "T1"
    T2 = "T2"
    PD = "PD"
    FS_PD = "FS-PD"
    FLAIR = "FLAIR"
    OTHER = "other"
    """Known to be none of these: diffusion, T2*, angiography, phase images."""

    UNKNOWN = "unknown"
    """Neither acquisition nor description tells."""


SHORT_TE_MS = 40.0
"""Longest echo time of a T1-weighted spin echo."""

LONG_TE_MS = 60.0
"""Shortest echo time of a T2-weighted spin echo."""

LONG_TR_MS = 1500.0
"""Repetition time from which a spin echo is no longer T1-weighted, unless an inversion makes it so."""

FLAIR_TI_MS = 1400.0
"""Shortest inversion time that nulls fluid; at 1.5 T and above it is 1500 to 2900 ms."""

STIR_TI_MS = 300.0
"""Longest inversion time that nulls fat."""

GRADIENT_ECHO_TE_MS = 12.0
"""Echo time from which a gradient echo is T2*-weighted."""

_FAT_SUPPRESSION = {"FS", "FATSAT", "FAT_SAT", "SPIR", "SPAIR", "SFS", "WE"}
_NOT_MAGNITUDE = {"P", "PHASE", "PHASE MAP", "VELOCITY", "I", "IMAGINARY"}
_NOT_ANATOMY = {"DIFFUSION", "ADC", "TRACEW", "PERFUSION", "ASL", "FMRI", "MIP", "PROJECTION IMAGE", "SUBTRACTION"}

_NAMES = [
    (Contrast.OTHER, r"\b(dwi|adc|diff\w*|dti|swi|tof|bold|perf\w*|asl|mra|swan|t2\s*\*)"),
    (Contrast.FLAIR, r"flair|dark.?fluid"),
    (Contrast.FS_PD, r"\bpd\w*[ _-]*(fs|fat.?sat|spair|spir)|\bfs[ _-]*pd"),
    (Contrast.PD, r"\bpd|proton"),
    (Contrast.T1, r"t1|mprage|bravo|spgr"),
    (Contrast.T2, r"t2"),
]


def contrast_of(header: Dataset) -> Contrast:
    """Contrast of a classic MR image from TE, TR, TI (ms), ScanningSequence, SequenceVariant and ScanOptions.

    Values are those of the MR Image module (DICOM PS3.3 C.8.3.1).
    """
    kind = set(upper_strings(header, "ImageType"))
    if kind & (_NOT_MAGNITUDE | _NOT_ANATOMY) or str(header.get("AngioFlag") or "") == "Y":
        return Contrast.OTHER
    sequence, name = set(upper_strings(header, "ScanningSequence")), str(header.get("SequenceName") or "").lower()
    if "EP" in sequence or name.lstrip("*").startswith("ep"):
        return Contrast.OTHER
    te, tr, ti = (_milliseconds(header, keyword) for keyword in ("EchoTime", "RepetitionTime", "InversionTime"))
    if te is None or tr is None:
        return _by_description(header)
    if "GR" in sequence and "SE" not in sequence:
        return _gradient_echo(header, te, tr, ti)
    return _spin_echo(header, te, tr, ti)


def is_localizer(header: Dataset) -> bool:
    """Whether an image only serves to plan others."""
    name = str(header.get("SeriesDescription") or "")
    return "LOCALIZER" in upper_strings(header, "ImageType") or bool(
        re.search(r"locali[sz]er|scout|survey|\b(3|three)[ _-]?(plane|pl)\b", name, re.IGNORECASE)
    )


def is_derived(header: Dataset) -> bool:
    """Whether an image was computed from others (DICOM PS3.3 C.7.6.1.1.2, first value of ImageType)."""
    return upper_strings(header, "ImageType")[:1] == ["DERIVED"]


def _spin_echo(header: Dataset, te: float, tr: float, ti: float | None) -> Contrast:
    if ti is not None and ti >= FLAIR_TI_MS and te >= LONG_TE_MS:
        return Contrast.FLAIR
    nulls_fat = ti is not None and 0 < ti <= STIR_TI_MS
    if te < SHORT_TE_MS and (tr < LONG_TR_MS or (ti is not None and STIR_TI_MS < ti < FLAIR_TI_MS)):
        return Contrast.T1
    if tr < LONG_TR_MS:
        return _by_description(header)
    if te >= LONG_TE_MS:
        return Contrast.T2
    suppressed = nulls_fat or bool(set(upper_strings(header, "ScanOptions")) & _FAT_SUPPRESSION)
    return Contrast.FS_PD if suppressed else Contrast.PD


def _gradient_echo(header: Dataset, te: float, tr: float, ti: float | None) -> Contrast:
    if te >= GRADIENT_ECHO_TE_MS:
        return Contrast.OTHER
    prepared = ti is not None and ti > STIR_TI_MS
    variant = set(upper_strings(header, "SequenceVariant"))
    if prepared or variant & {"SP", "MP"}:
        named = _by_description(header)
        return Contrast.OTHER if named is Contrast.OTHER else Contrast.T1
    return _by_description(header)


def _by_description(header: Dataset) -> Contrast:
    name = str(header.get("SeriesDescription") or "")
    return next((one for one, words in _NAMES if re.search(words, name, re.IGNORECASE)), Contrast.UNKNOWN)


def _milliseconds(header: Dataset, keyword: str) -> float | None:
    value = header.get(keyword)
    return None if value is None else float(value)
