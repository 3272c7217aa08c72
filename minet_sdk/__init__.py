"""minet-sdk: low-latency multi-contrast MRI super-resolution. Research use only, not a medical device."""

import logging
from typing import TYPE_CHECKING, Any

from minet_sdk.errors import MinetError

if TYPE_CHECKING:
    from minet_sdk.runtime import Runtime

__version__ = "0.1.0"
__all__ = ["MinetError", "Runtime", "__version__"]

# What happens to the log is the application's choice; the command line says the same things in its own words.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Load `Runtime` on first use, which keeps ``import minet_sdk`` fast."""
    if name == "Runtime":
        from minet_sdk.runtime import Runtime

        return Runtime
    raise AttributeError(f"module 'minet_sdk' has no attribute {name!r}")
