"""The inventory service: sets goods aside for orders."""

from services.inventory.listeners import InventoryService

__all__ = ("events",)

events = InventoryService()
