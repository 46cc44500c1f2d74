"""What tests of services use: fakes, trees of what was caused, a clock to move, fixtures.

Import it in tests only; production code never does.
"""

from eventbus.testing.fakes import fake, is_faking, restore

__all__ = ("fake", "is_faking", "restore")
