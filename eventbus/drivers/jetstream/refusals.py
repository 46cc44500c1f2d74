"""What nats-py met while it connected, as our errors: what is wrong and what to do about it."""

import re
import ssl
from collections.abc import Mapping

import nats.errors

from eventbus.errors import (
    CertificateError,
    EventBusError,
    NotAuthorizedError,
    NotConnectedError,
    SettingsError,
)

__all__ = ("refusal", "text")

_UNAUTHORIZED = re.compile(r"authorization violation|authentication (expired|revoked)", re.I)


def refusal(server: str, errors: list[Exception], info: Mapping[str, object]) -> EventBusError:
    """Return our error for what nats-py met; some only say that there was another before."""
    for error in errors:
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return _tls_refusal(server, _tls_reason(error))
        if _UNAUTHORIZED.search(str(error)):
            return NotAuthorizedError(
                f"{server} refused the credentials ({text(error)}); check "
                "EVENTBUS_NATS_USER, _PASSWORD, _TOKEN, _NKEY_SEED or _CREDS, whichever this "
                "server expects"
            )
        if "connect url" in str(error):
            return SettingsError(f"EVENTBUS_NATS_URL: '{server}' isn't a server; {text(error)}")
        if isinstance(error, ConnectionError) and info.get("tls_verify"):
            # The alert that says why is often lost with the connection.
            return _tls_refusal(server, "it refused our certificate, or that we have none")
    first = next(one for one in errors if not isinstance(one, nats.errors.NoServersError))
    return NotConnectedError(f"{server}: {text(first)}")


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    return (error.reason or str(error)).replace("_", " ").lower()


def _tls_refusal(server: str, reason: str) -> CertificateError:
    return CertificateError(
        f"TLS with {server} failed: {reason}; check EVENTBUS_TLS_CA, _CERT, _KEY and _HOSTNAME, "
        "and the dates of the certificates"
    )


def text(error: Exception) -> str:
    """Return what an error of nats-py says, without its decoration."""
    return str(error).removeprefix("nats: ").strip("'\" ") or type(error).__name__
