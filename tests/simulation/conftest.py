"""Simulations are tried as much as properties are, see `tests.property.conftest`."""

from tests.property import conftest as profiles

__all__ = ("profiles",)
