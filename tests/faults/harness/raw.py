"""Bytes on the wire that no client library would send."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

__all__ = ("hpub", "pub", "put")

PATIENCE = 5.0


def pub(subject: bytes, body: bytes) -> bytes:
    """Return a message without headers."""
    return b"PUB %b %d\r\n%b\r\n" % (subject, len(body), body)


def hpub(subject: bytes, headers: bytes, body: bytes) -> bytes:
    """Return a message with a block of headers, as it stands."""
    head = b"NATS/1.0\r\n" + headers + b"\r\n"
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, len(head), len(head) + len(body), head, body)


async def put(url: str, lines: bytes) -> None:
    """Write bytes to a server, and wait until it has read them."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n' + lines + b"PING\r\n")
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"PONG\r\n")
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
