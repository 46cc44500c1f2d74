"""The order service: takes orders."""

from services.order.app import OrderService

__all__ = ("events",)

events = OrderService()
