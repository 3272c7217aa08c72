"""Identifiers made from what went into an image: the same input, model and settings always get the same one."""

import hashlib

from pydicom.uid import UID


def hashed_uid(*parts: str) -> UID:
    """A UID of the form 2.25.<integer> (DICOM PS3.5 B.2) from 128 bits of a SHA-256 of the parts.

    The bits of a version 8 UUID are set (RFC 9562), which is the version for hashes of one's own.
    """
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    number = int.from_bytes(digest[:16], "big")
    number = number & ~(0xF << 76) | (0x8 << 76)
    number = number & ~(0x3 << 62) | (0x2 << 62)
    return UID(f"2.25.{number}")


IMPLEMENTATION_UID = hashed_uid("minet-sdk", "implementation")
"""ImplementationClassUID of files that this SDK writes."""
