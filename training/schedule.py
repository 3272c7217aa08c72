"""The learning rate as a function of the step alone, so that a resumed run needs no scheduler state."""

import math
from typing import Literal

Schedule = Literal["cosine", "constant"]


def rate_factor(step: int, steps: int, schedule: Schedule, warm_up: int, final_part: float) -> float:
    """What the peak learning rate is multiplied with.

    Args:
        step: number of the step about to be made, from 0.
        steps: length of the run.
        schedule: `cosine` falls from 1 to ``final_part`` over the whole run; `constant` stays at 1, as in the paper.
        warm_up: steps over which the factor rises from near 0, under either schedule; 0 for none.
        final_part: where the cosine ends.

    Returns:
        A factor in (0, 1].
    """
    rise = min(1.0, (step + 1) / warm_up) if warm_up else 1.0
    if schedule == "constant":
        return rise
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return rise * (final_part + (1 - final_part) * cosine)
