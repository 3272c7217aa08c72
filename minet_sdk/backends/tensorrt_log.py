"""The one logger that all objects of a TensorRT library in this process share: it collects, and prints nothing.

The library keeps the first logger that it is given until its last object is gone, and ignores all others: what it says
of a build would go to the runtime that was there before. And it warns of the other logger while it holds a lock: if
Python collects garbage in that call, a builder or runtime in the garbage waits for the same lock for ever.
"""

import logging
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any

_CONSEQUENCE = "catchCudaError"
"""In messages of a builder without a GPU that follow every error, whatever its cause."""

_SOURCE_POSITION = re.compile(r"\s*\bIn \S+ at /\S+?:\d+")

_log = logging.getLogger("minet_sdk")


class Messages:
    """What a library said, in its order; without the verbose rest, which is thousands of lines a graph."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.remarks: list[str] = []

    def cause(self) -> str:
        """The first error that is not merely the consequence of another."""
        causes = [text for text in self.errors if _CONSEQUENCE not in text] or self.errors
        return causes[0] if causes else "its log gives no reason, or another logger of this process has it"


def logger_of(trt: Any) -> Any:
    """The logger to give to every builder, parser and runtime of a library.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.

    Returns:
        An `ILogger`. Its ``collect()`` is a context manager that gives the `Messages` of the calling thread, and of the
        library's own threads. What is said in other threads goes to Python's logging. ``last_error`` is the last error
        in the calling thread, or empty.
    """
    return _logger(trt.ILogger)


@cache
def _logger(base: Any) -> Any:
    class Logger(base):
        """Nothing may be raised in `log`: its caller is C++ code, in any thread."""

        def __init__(self) -> None:
            base.__init__(self)
            self._thread = threading.local()
            self._collecting: list[Messages] = []

        @property
        def last_error(self) -> str:
            """In this thread; empty if there was none."""
            return getattr(self._thread, "last_error", "")

        @contextmanager
        def collect(self) -> Generator[Messages]:
            """Collect what the library says while the block runs."""
            outer, messages = getattr(self._thread, "messages", None), Messages()
            self._thread.messages = messages
            self._collecting.append(messages)
            try:
                yield messages
            finally:
                self._collecting.remove(messages)
                self._thread.messages = outer

        def log(self, severity: Any, msg: str) -> None:
            """Called by the library."""
            if severity == base.VERBOSE:
                return
            text = _clean(msg)
            kind = _KINDS.get(severity.name, "remarks")
            if kind == "errors":
                self._thread.last_error = text
            own: Messages | None = getattr(self._thread, "messages", None)
            if own is None:
                _log.log(logging.WARNING if kind == "errors" else logging.DEBUG, "TensorRT: %s", text)
            for messages in [own] if own is not None else list(self._collecting):
                getattr(messages, kind).append(text)

    return Logger()


_KINDS = {"INTERNAL_ERROR": "errors", "ERROR": "errors", "WARNING": "warnings"}


def _clean(text: str) -> str:
    """A message on one line, without the position in the library's own source."""
    return _SOURCE_POSITION.sub("", " ".join(text.split()))
