"""The user service: who has an account."""

from services.user.app import UserService

__all__ = ("events",)

events = UserService()
