"""A file appears whole or not at all: written beside its place first, then renamed."""

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Give a temporary name in the same folder; what the block writes there becomes ``path`` when the block ends.

    If the block raises, ``path`` is as it was before and nothing is left beside it.

    Raises:
        OSError: the file cannot be renamed.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
