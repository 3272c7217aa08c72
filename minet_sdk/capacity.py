"""What an engine may restore at once, and what becomes of a slice that is larger: tiles, or a refusal that says why."""

import logging
from typing import Literal, get_args

from minet_sdk.backends.base import Runner
from minet_sdk.bundle import Bundle
from minet_sdk.errors import InputError
from minet_sdk.memory import as_mib, estimated
from minet_sdk.tiling import Tiling, fitting, margin_of, tiled

TilingOption = Literal["exact", "approximate"]

TWICE_BYTES = 2**29
"""That two slices may take in all: larger ones take so long that nothing else takes much of an engine's time."""

_log = logging.getLogger("minet_sdk")


class Capacity:
    """Limits of one runtime. For any number of threads.

    Args:
        bundle: the model.
        runner: the engine, active.
        largest_output: pixels of the restored image that are restored at once.
        max_memory: bytes that one slice may take; None for no limit.
        tiling: ``approximate`` also cuts for networks with parts that take in the whole image.

    Raises:
        InputError: there is a memory limit, and neither engine nor bundle says what a slice takes.
    """

    def __init__(
        self, bundle: Bundle, runner: Runner, largest_output: int, max_memory: int | None, tiling: TilingOption
    ) -> None:
        if tiling not in get_args(TilingOption):
            raise InputError(f"tiling is {tiling!r}; choose one of {', '.join(get_args(TilingOption))}")
        if max_memory is not None and max_memory < 1:
            raise InputError(f"max_memory is {max_memory}; give a number of bytes, or None for no limit")
        self._manifest = bundle.manifest
        self._bundle = bundle
        self._runner = runner
        self._largest_output = largest_output
        self.max_memory = max_memory
        self._approximate = tiling == "approximate"
        self._known: dict[tuple[int, int], Tiling] = {}
        self.known_by = ""
        if runner.memory(1, 1) is not None:
            self.known_by = "engine"
        elif estimated(bundle, 1) is not None:
            self.known_by = "estimate"
        if max_memory is not None and not self.known_by:
            raise InputError(
                f"max_memory cannot be honoured: the bundle of {bundle.manifest.name} does not say what a slice takes; "
                "export it again, or take backend native"
            )

    @property
    def tiling(self) -> str:
        """What becomes of a slice that does not fit."""
        if not self._obstacle:
            return "exact"
        return "approximate" if self._approximate and self._manifest.reach is not None else f"none: {self._obstacle}"

    @property
    def largest_output(self) -> int:
        """Pixels of the restored image that fit at once, for images that are never tiled."""
        pixels = self._largest_output
        per_pixel = estimated(self._bundle, 2**20)
        if self.max_memory is None or per_pixel is None:
            return pixels
        weights = estimated(self._bundle, 0) or 0
        return min(pixels, max(0, (self.max_memory - weights) * 2**20 // max(1, per_pixel - weights)))

    def bytes_for(self, height: int, width: int) -> int | None:
        """What a low-resolution slice takes, prepared and restored; None if neither engine nor bundle says."""
        exactly = self._runner.memory(height, width)
        return estimated(self._bundle, height * width * self._manifest.scale**2) if exactly is None else exactly

    def tiling_for(self, height: int, width: int) -> Tiling:
        """How to cut a low-resolution slice.

        Raises:
            InputError: it does not fit, and cannot be cut.
        """
        found = self._known.get((height, width))
        if found is None:
            found = self._known[height, width] = self._choose(height, width)
            if not found.exact:
                _log.warning(
                    "%s: slices of %d x %d are restored in %s, the %s of each tile alone: not the result of the whole",
                    *(self._manifest.name, height, width, found, self._parts),
                )
            elif not found.whole:
                _log.info("%s: slices of %d x %d are restored in %s", self._manifest.name, height, width, found)
        return found

    def fits_twice(self, height: int, width: int) -> bool:
        """Whether two low-resolution slices at the same time take little memory, and no more than the limit."""
        needed = self.bytes_for(height, width)
        most = TWICE_BYTES if self.max_memory is None else min(TWICE_BYTES, self.max_memory)
        return needed is not None and 2 * needed <= most and self.tiling_for(height, width).whole

    def check_prepared(self, nbytes: int | None) -> None:
        """Refuse features that alone take more than the limit.

        Raises:
            InputError: they do.
        """
        if self.max_memory is not None and nbytes is not None and nbytes > self.max_memory:
            raise InputError(
                f"the prepared reference holds more than max_memory of {as_mib(self.max_memory)}: "
                "prepare slice by slice, or give the reference itself with the target"
            )

    def excess(self, height: int, width: int) -> str:
        """Which limit a low-resolution slice exceeds, and by what; empty if none."""
        scale = self._manifest.scale
        size = f"the restored slice would be {scale * height} x {scale * width}"
        if scale**2 * height * width > self._largest_output:
            return f"{size}, over the limit of {self._largest_output} pixels (largest_output)"
        return self.excess_memory(height, width)

    def excess_memory(self, height: int, width: int) -> str:
        """By what a low-resolution slice exceeds the limit of memory; empty if it does not."""
        scale = self._manifest.scale
        needed = None if self.max_memory is None else self.bytes_for(height, width)
        if self.max_memory is None or needed is None or needed <= self.max_memory:
            return ""
        about = "about " if self.known_by == "estimate" else ""
        return (
            f"the restored slice would be {scale * height} x {scale * width} and take {about}{as_mib(needed)}, "
            f"over max_memory of {as_mib(self.max_memory)}"
        )

    def _choose(self, height: int, width: int) -> Tiling:
        if self._fits(height, width):
            return tiled(height, width, 1, 1, 0)
        reach = self._manifest.reach
        exact = not self._obstacle
        if reach is None or not (exact or self._approximate):
            accept = "" if reach is None else ", or accept tiling='approximate'"
            raise InputError(
                f"{self.excess(height, width)}, and {self._manifest.name} cannot be restored in tiles: "
                f"{self._obstacle}; raise the limit or give a smaller matrix{accept}"
            )
        found = fitting(height, width, margin_of(reach, self._manifest.scale), self._fits, exact=exact)
        if found is None:
            raise InputError(
                f"{self.excess(height, width)}, and so would every tile with the {reach} pixels around it that "
                f"{self._manifest.name} looks at; raise the limit or give a smaller matrix"
            )
        return found

    @property
    def _parts(self) -> str:
        return " and ".join(self._manifest.global_parts)

    @property
    def _obstacle(self) -> str:
        """Why tiles would not give what the whole slice gives; empty if they do."""
        if self._manifest.reach is None:
            return "its bundle does not say how far it looks, export it again"
        verb = "takes" if len(self._manifest.global_parts) == 1 else "take"
        return f"its {self._parts} {verb} in the whole image" if self._manifest.global_parts else ""

    def _fits(self, height: int, width: int) -> bool:
        return not self.excess(height, width)
