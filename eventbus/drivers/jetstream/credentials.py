"""What the settings say about who we are and whom we trust, as one `Login`.

Files are read anew for each connection, so that a renewed certificate or credential needs no
restart.
"""

import ssl
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from pydantic import SecretStr

from eventbus.errors import CertificateError, SettingsError
from eventbus.settings import Settings

__all__ = ("Login", "login_of")

_JWT = "BEGIN NATS USER JWT"
_SEED = "BEGIN USER NKEY SEED"


@dataclass(frozen=True, slots=True)
class Login:
    """How we introduce ourselves to a server."""

    name: str
    inbox_prefix: str
    patience: float
    """How long one attempt to connect may take."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    nkey_seed: str | None = field(default=None, repr=False)
    creds: str | None = field(default=None, repr=False)
    """The text of a ``.creds`` file."""
    tls: ssl.SSLContext | None = None
    """Set: the connection is encrypted, or it isn't made."""
    tls_hostname: str | None = None
    fast_lane: bool = False
    """Whether messages may go past nats-py, see `eventbus.drivers.jetstream.lane`."""


def login_of(settings: Settings, service: str) -> Login:
    """Return how to introduce ourselves, with certificates and keys loaded.

    Raises:
        SettingsError: A file is missing or isn't what its setting says.
        CertificateError: A certificate, key or CA can't be used.
    """
    return Login(
        name=settings.connection_name or service,
        inbox_prefix=f"_INBOX_{service}",
        patience=settings.connect_timeout,
        user=settings.nats_user,
        password=_plain(settings.nats_password),
        token=_plain(settings.nats_token),
        nkey_seed=_nkey_seed(settings),
        creds=_creds(settings),
        tls=_tls(settings),
        tls_hostname=settings.tls_hostname,
        fast_lane=settings.fast_lane,
    )


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _nkey_seed(settings: Settings) -> str | None:
    given = _plain(settings.nats_nkey_seed)
    if given is None:
        return None
    seed = given.strip()
    if not _is_seed(seed):
        seed = _text(Path(given), "NATS_NKEY_SEED").strip()
    if not _is_seed(seed):
        raise SettingsError(
            "EVENTBUS_NATS_NKEY_SEED holds no NKEY seed of a user, and no file with one; "
            "a seed begins with SU"
        )
    return seed


def _is_seed(text: str) -> bool:
    if not text.startswith("SU"):
        return False
    import nkeys  # type: ignore[import-untyped]

    try:
        nkeys.from_seed(bytearray(text.encode()))  # pyright: ignore[reportUnknownMemberType]
    except (nkeys.NkeysError, ValueError):
        return False
    return True


def _creds(settings: Settings) -> str | None:
    path = settings.nats_creds
    if path is None:
        return None
    text = _text(path, "NATS_CREDS")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    seeds = [after for line, after in pairwise(lines) if _SEED in line]
    # nats-py would look for these lines for ever, with the event loop blocked.
    if not any(_JWT in line for line in lines) or not seeds or not _is_seed(seeds[0]):
        raise SettingsError(
            f"EVENTBUS_NATS_CREDS: '{path}' isn't a .creds file; it must hold a user's JWT and "
            "NKEY seed"
        )
    return text


def _text(path: Path, setting: str) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as exc:
        raise SettingsError(f"EVENTBUS_{setting}: can't read '{path}' ({exc})") from exc


def _tls(settings: Settings) -> ssl.SSLContext | None:
    wanted = settings.tls_ca or settings.tls_cert or settings.tls_hostname
    if not wanted and not any(url.startswith(("tls://", "wss://")) for url in settings.servers):
        return None
    for path, setting in (
        (settings.tls_ca, "TLS_CA"),
        (settings.tls_cert, "TLS_CERT"),
        (settings.tls_key, "TLS_KEY"),
    ):
        if path is not None:
            _text(path, setting)
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
    except ssl.SSLError as exc:
        raise CertificateError(
            f"EVENTBUS_TLS_CA: '{settings.tls_ca}' holds no certificate in PEM form ({exc.reason})"
        ) from exc
    if settings.tls_cert is not None:
        _load_pair(context, settings.tls_cert, settings.tls_key)
    return context


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    def ask() -> NoReturn:
        # Without this, Python would ask for it on the terminal.
        raise SettingsError(
            f"EVENTBUS_TLS_KEY: '{key}' is encrypted with a passphrase; store it without one"
        )

    try:
        context.load_cert_chain(cert, key, password=ask)
    except ssl.SSLError as exc:
        raise CertificateError(
            f"EVENTBUS_TLS_CERT '{cert}' and EVENTBUS_TLS_KEY '{key}' can't be used "
            f"({exc.reason}); they must be PEM and belong together"
        ) from exc
