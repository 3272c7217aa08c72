"""The learning rate over a run."""

import pytest

from minet_sdk.training.schedule import rate_factor


def test_cosine_warms_up_and_falls() -> None:
    factors = [rate_factor(step, 100, "cosine", 10, 0.01) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[50] == pytest.approx(0.01 + 0.99 / 2)
    assert factors[100] == pytest.approx(0.01)
    assert factors[:9] == sorted(factors[:9])
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_the_papers_rate_never_changes() -> None:
    assert {rate_factor(step, 100, "constant", 0, 0.01) for step in range(100)} == {1.0}
    assert [rate_factor(step, 100, "constant", 4, 0.01) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
