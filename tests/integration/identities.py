"""Certificates and NATS logins for tests, valid and not, made on the spot."""

import base64
import hashlib
import json
import os
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import nkeys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_NOW = datetime.now(UTC)  # noqa: TID251 - certificates are valid by the wall clock


def user_nkey() -> tuple[str, str]:
    """Return the seed and the public key of a new user."""
    return _nkey(nkeys.PREFIX_BYTE_USER)


def _nkey(prefix: int) -> tuple[str, str]:
    seed = nkeys.encode_seed(os.urandom(32), prefix).decode()
    return seed, nkeys.from_seed(bytearray(seed.encode())).public_key.decode()


class Operator:
    """A NATS operator with one account, and the logins it signs."""

    def __init__(self) -> None:
        self._operator = _nkey(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = _nkey(nkeys.PREFIX_BYTE_ACCOUNT)
        self._system = _nkey(nkeys.PREFIX_BYTE_ACCOUNT)

    @property
    def config(self) -> str:
        """What a server has to be told."""
        limits: dict[str, object] = {"subs": -1, "data": -1, "payload": -1, "conn": -1}
        limits |= {"leaf": -1, "imports": -1, "exports": -1, "wildcards": True}
        storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
        operator = {"type": "operator", "version": 2, "system_account": self._system[1]}
        account = {"type": "account", "version": 2, "limits": limits | storage}
        system = {"type": "account", "version": 2, "limits": limits}
        return (
            f"operator: {self._signed({'nats': operator}, self._operator[1])}\n"
            f"system_account: {self._system[1]}\nresolver: MEMORY\nresolver_preload: {{\n"
            f"  {self._account[1]}: {self._signed({'nats': account}, self._account[1])}\n"
            f"  {self._system[1]}: {self._signed({'nats': system}, self._system[1])}\n}}"
        )

    def creds(self, path: Path, valid: float = 3600) -> Path:
        """Write the credentials of a new user, valid for so many seconds."""
        seed, public = user_nkey()
        limits = {"subs": -1, "data": -1, "payload": -1}
        claims = {"nats": {"type": "user", "version": 2, **limits}}
        claims |= {"exp": int(time.time() + valid)}  # noqa: TID251 - by the wall clock
        token = self._signed(claims, public, self._account)
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
        return path

    def _signed(
        self, claims: dict[str, object], subject: str, by: tuple[str, str] | None = None
    ) -> str:
        seed, issuer = by or self._operator
        claims = {"iat": int(_NOW.timestamp()), "iss": issuer, "sub": subject, **claims}
        digest = hashlib.sha256(json.dumps(claims).encode()).digest()
        claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
        head = _encoded(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
        text = f"{head}.{_encoded(json.dumps(claims).encode())}"
        signature = nkeys.from_seed(bytearray(seed.encode())).sign(text.encode())
        return f"{text}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Authority:
    """A certificate authority of its own."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        usage = x509.KeyUsage(*(False,) * 5, True, True, False, False)
        self._certificate = (
            self._builder(self._name, self._key, timedelta(days=-1), timedelta(days=1))
            .add_extension(constraint, critical=True)
            .add_extension(usage, critical=True)
            .add_extension(self._key_id(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.path = self._written(f"{name}.pem", self._certificate)

    def issue(self, name: str, *, days: float = 1, host: str = "127.0.0.1") -> tuple[Path, Path]:
        """Return the paths of a certificate, valid for so many days, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            self._builder(subject, key, timedelta(days=-2), timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([_host(host)]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{name}.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return self._written(f"{name}.pem", certificate), path

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        begins: timedelta,
        ends: timedelta,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOW + begins)
            .not_valid_after(_NOW + ends)
        )

    def _key_id(self) -> x509.SubjectKeyIdentifier:
        return x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())

    def _written(self, name: str, certificate: x509.Certificate) -> Path:
        path = self._folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
