"""The payment service: takes money, or says why it couldn't."""

from services.payment.app import PaymentService

__all__ = ("events",)

events = PaymentService()
