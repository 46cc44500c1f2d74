"""What happens to a vendor."""

from typing import Annotated, Literal

from pydantic import EmailStr, StringConstraints

from eventbus.event import Event

__all__ = ("VendorCreated", "VendorId", "VendorStatus", "VendorStatusChanged")

VendorId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
"""How every event calls a vendor."""
VendorStatus = Literal["pending", "approved", "rejected", "suspended"]
"""Where a vendor stands; a new one is pending."""


class VendorCreated(Event, name="vendor.created", key="vendor_id"):
    """A vendor applied."""

    vendor_id: VendorId
    name: str
    owner_email: EmailStr


class VendorStatusChanged(Event, name="vendor.status.changed", key="vendor_id"):
    """A vendor was approved, rejected, suspended, or is pending again."""

    vendor_id: VendorId
    name: str
    owner_email: EmailStr
    previous: VendorStatus
    status: VendorStatus
