"""How much the properties are tried: the same in every run, so that CI doesn't fail by luck.

``HYPOTHESIS_PROFILE=search`` looks for new examples, and for longer.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeat",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", deadline=None, max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))
