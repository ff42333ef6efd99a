"""Hypothesis profiles: `ci` is derandomised and quick, `night` looks long and at random.

In `tests/conftest.py`: `from agblocks.testing import profiles; profiles.register()`. Then `pytest` uses `ci`, and
`pytest --hypothesis-profile=night` (`make fuzz`) the long one. `check_block` follows the profile in use.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

ORDINARY, NIGHT = 40, 200  # examples of a test by day and by night
CI = 5  # examples of a contract by day: there are many contracts; one that compiles takes fewer
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


def register(default: str = "ci") -> None:
    """Register both profiles and load `HYPOTHESIS_PROFILE`, or else the default."""
    settings.register_profile("ci", derandomize=True, max_examples=ORDINARY, deadline=None, suppress_health_check=QUIET)
    settings.register_profile("night", max_examples=NIGHT, deadline=None, suppress_health_check=QUIET)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", default))


def night() -> bool:
    """Whether the long profile is in use."""
    return settings().max_examples == NIGHT and not settings().derandomize


def examples() -> int:
    """How many examples a contract looks at under the profile in use."""
    return NIGHT if night() else CI


def sparing(most: int) -> settings:
    """Settings of one contract: no database, no deadline, one counter-example, derandomised unless it is night.

    By day a counter-example is told as it was found: making a recipe smaller takes minutes.
    """
    return settings(
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if night() else [])],
        max_examples=most,
        deadline=None,
        database=None,
        derandomize=not night(),
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=QUIET,
    )
