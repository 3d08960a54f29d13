"""Signature Version 4 as AWS checks it: the signature is computed again from what arrived."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

_SKEW_S = 300
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=([^/,\s]+)/(\d{8})/([^/,]+)/([^/,]+)/aws4_request,\s*"
    r"SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]{64})"
)


class Refused(NamedTuple):
    """Why AWS would answer 403."""

    code: str
    message: str


class Signed(NamedTuple):
    """A request as it arrived; header names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


def refusal(request: Signed, credentials: tuple[str, str, str | None], now: datetime | None = None) -> Refused | None:
    """Why the request's signature is not good; None: it is."""
    found = _AUTHORIZATION.match(request.headers.get("authorization", ""))
    if not found:
        return Refused("MissingAuthenticationTokenException", "Missing Authentication Token")
    key_id, day, region, service, signed, signature = found.groups()
    access_key, secret, token = credentials
    if key_id != access_key or request.headers.get("x-amz-security-token") != token:
        return Refused("UnrecognizedClientException", "The security token included in the request is invalid.")
    stamp = request.headers.get("x-amz-date", "")
    if not _is_fresh(stamp, day, now or datetime.now(UTC)):
        return Refused("InvalidSignatureException", f"Signature expired: {stamp} is too far from the server's time")
    names = signed.split(";")
    missing = {"host", "x-amz-date", *(["x-amz-security-token"] if token else [])} - set(names)
    if missing:
        return Refused("InvalidSignatureException", f"{', '.join(sorted(missing))} must be a signed header")
    scope = f"{day}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(_canonical(request, names)).hexdigest()}"
    if not hmac.compare_digest(_sign(secret, (day, region, service, "aws4_request"), text), signature):
        return Refused("InvalidSignatureException", "The request signature we calculated does not match yours.")
    return None


def _is_fresh(stamp: str, day: str, now: datetime) -> bool:
    try:
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    return stamp.startswith(day) and abs((now - at).total_seconds()) <= _SKEW_S


def _canonical(request: Signed, names: list[str]) -> bytes:
    """The canonical request. The path is quoted once more than on the wire, as for every service but S3."""
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names)
    lines = [
        request.method,
        quote(request.path, safe="/~"),
        _canonical_query(request.query),
        headers,
        ";".join(names),
        hashlib.sha256(request.body).hexdigest(),
    ]
    return "\n".join(lines).encode()


def _canonical_query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True) if query else []
    return "&".join(sorted(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in pairs))


def _sign(secret: str, scope: tuple[str, ...], text: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()
