"""Finds, starts, watches and stops a nats-server of this machine, for development and tests."""

from eventbus.embedded.binary import MIN_VERSION, find_server, server_version
from eventbus.embedded.server import NatsServer

__all__ = ("MIN_VERSION", "NatsServer", "find_server", "server_version")
