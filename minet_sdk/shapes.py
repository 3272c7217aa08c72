"""Which shapes a model takes and gives; the same rules for images in host memory and on a device."""

from dataclasses import dataclass

from minet_sdk.errors import InputError

LEAST_SIZE = 16
"""Rows and columns that a low-resolution target must have."""

LARGEST_OUTPUT = 2048 * 2048
"""Pixels of a slice that are restored at once, unless the runtime was made with another limit."""


@dataclass(frozen=True)
class ShapeRules:
    """Shapes are (H, W) or (slices, H, W)."""

    model: str
    """Name, for errors."""

    scale: int
    needs_reference: bool
    largest_output: int | None = None
    """Pixels of a restored slice above which it is refused; None where larger ones are tiled."""

    def restored(self, target: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the restored image of a target.

        Raises:
            InputError: too small, or too large for this runtime.
        """
        if min(target[-2:]) < LEAST_SIZE:
            raise InputError(f"target is {_by(target)}; at least {LEAST_SIZE} x {LEAST_SIZE} is needed")
        restored = (*target[:-2], self.scale * target[-2], self.scale * target[-1])
        self._check_output(restored)
        return restored

    def check_reference(self, reference: tuple[int, ...] | None, expected: tuple[int, ...]) -> None:
        """Refuse a reference that does not belong to the model or to a target.

        Args:
            reference: its shape; None if there is none.
            expected: shape of the restored image.

        Raises:
            InputError: missing, superfluous or of another shape.
        """
        if reference is None:
            if self.needs_reference:
                raise InputError(f"model {self.model} needs a reference of shape {expected}; got none")
            return
        self.check_takes_reference()
        if reference != expected:
            raise InputError(
                f"reference has shape {reference}; model {self.model} magnifies by {self.scale}, so "
                f"this target needs {expected}"
            )

    def check_takes_reference(self) -> None:
        """Refuse a reference for a single-contrast model.

        Raises:
            InputError: it is one.
        """
        if not self.needs_reference:
            raise InputError(f"model {self.model} is single-contrast and takes no reference")

    def check_alone(self, reference: tuple[int, ...]) -> None:
        """Refuse a reference that no target could fit.

        Raises:
            InputError: no multiple of the scale, too small, or too large for this runtime.
        """
        scale, size = self.scale, reference[-2:]
        if size[0] % scale or size[1] % scale or min(size) < LEAST_SIZE * scale:
            raise InputError(
                f"reference is {_by(size)}; for this x{scale} model both must be multiples of {scale} "
                f"and at least {LEAST_SIZE * scale}"
            )
        self._check_output(size)

    def _check_output(self, size: tuple[int, ...]) -> None:
        if self.largest_output is not None and size[-2] * size[-1] > self.largest_output:
            raise InputError(
                f"the restored slice would be {_by(size)}, over the limit of {self.largest_output} pixels; "
                "restore a part of it, or raise largest_output"
            )


def _by(size: tuple[int, ...]) -> str:
    return f"{size[-2]} x {size[-1]}"
