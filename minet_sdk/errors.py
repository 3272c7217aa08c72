"""The one tree of errors that this SDK raises for reasons a user can act on.

Each message is one line: what was wrong, what it got, what was expected, what to do.
"""


class MinetError(Exception):
    """Base of every error that is not a bug; the command line prints it as one line."""


class InputError(MinetError, ValueError):
    """An array, option or setting does not have the form that was asked for."""


class BundleError(MinetError):
    """A model bundle is missing, incomplete, corrupt, tampered with or of another version."""


class BackendError(MinetError):
    """An inference engine is missing, or refuses to load or to run the model."""


class DicomError(MinetError):
    """A DICOM file or series cannot be read, paired or processed."""


class FileFormatError(MinetError):
    """A file is not what its name says, or its content is damaged."""


class MissingPackageError(MinetError, ImportError):
    """A feature needs a Python package that is not installed."""


class ExportError(MinetError):
    """A checkpoint cannot be exported, or the exported graph fails its validation."""


class TrainingError(MinetError):
    """Training data, settings or a checkpoint are unusable."""


def first_line(error: Exception) -> str:
    """What another library's error says, short enough for the end of a one-line message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
