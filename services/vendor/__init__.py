"""The vendor service: who may sell, and who decided so."""

from services.vendor.app import VendorService

__all__ = ("events",)

events = VendorService()
