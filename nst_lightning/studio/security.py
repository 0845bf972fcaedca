"""Who may ask: hosts, origins, the token, and how much is read of what they send."""

from __future__ import annotations

import hashlib
import hmac
import json
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nst_lightning.studio.limits import Limits
from nst_lightning.studio.metrics import Metrics
from nst_lightning.studio.refusals import RefusedError

COOKIE = "nst_studio"
LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
_OPEN = ("/health", "/login", "/")  # need no token
_OPEN_BELOW = "/static/"
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
_MARGIN = 1 << 16  # bytes of a form around its file
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Token:
    """The secret by which clients are known; without one everybody is.

    Args:
        secret: It, or None.
    """

    def __init__(self, secret: str | None) -> None:
        self.is_needed = secret is not None
        self._digest = _digest(secret or "")
        # What a browser keeps: it stays good when the server is started again, and does not say the token.
        self.cookie = hmac.new(self._digest, b"nst studio cookie", hashlib.sha256).hexdigest()

    def is_right(self, given: str) -> bool:
        """Whether a token is the right one; the answer takes as long for each."""
        return not self.is_needed or hmac.compare_digest(self._digest, _digest(given))

    def admits(self, headers: Headers) -> bool:
        """Whether a request may come in."""
        if not self.is_needed:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.is_right(given.strip())
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(self.cookie.encode(), found.value.encode())


class Guard:
    """Stands before the server: what it refuses is not looked at any further.

    Args:
        app: The server.
        token: Who may come in.
        limits: How much is read.
        metrics: Counts what is refused.
    """

    def __init__(self, app: ASGIApp, token: Token, limits: Limits, metrics: Metrics) -> None:
        self._app, self._token, self._limits, self._metrics = app, token, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                if message["status"] >= 400:
                    self._metrics.refused.labels(str(message["status"])).inc()
            await send(message)

        try:
            most = self._check(scope, Headers(scope=scope))
        except RefusedError as refusal:
            await _answer(refusal, send_guarded)
            return
        await self._app(scope, _Counted(receive, most), send_guarded)

    def _check(self, scope: Scope, headers: Headers) -> int:
        """Refuse a request, or say how many bytes it may have."""
        method, path = scope["method"], scope["path"]
        host = headers.get("host", "")
        if not self._token.is_needed and _name(host) not in LOOPBACK:
            raise RefusedError(f"Host: must be localhost, got '{host[:80]}'; open the page by that name", 403, "Host")
        is_page = method in _SAFE and (path == "/" or path.startswith(_OPEN_BELOW))
        site = headers.get("sec-fetch-site")
        if site in {"cross-site", "same-site"} and not is_page:
            raise RefusedError(
                "Origin: must be this server's own page, got another site's; open the page", 403, "Origin"
            )
        origin = headers.get("origin")
        if origin is not None and method not in _SAFE and urlsplit(origin).netloc.lower() != host.lower():
            raise RefusedError(
                f"Origin: must be this server's, got '{origin[:80]}'; open the page itself", 403, "Origin"
            )
        if not (path in _OPEN or path.startswith(_OPEN_BELOW) or self._token.admits(headers)):
            raise RefusedError(
                "token: must be given, as Authorization: Bearer TOKEN or by the page's form", 401, "token"
            )
        is_upload = path == "/api/uploads"
        most = self._limits.file_bytes + _MARGIN if is_upload else self._limits.json_bytes
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > most:
            raise too_much(self._limits, is_upload=is_upload)
        return most


def too_much(limits: Limits, *, is_upload: bool) -> RefusedError:
    """What is answered to a body that is too long."""
    if is_upload:
        return RefusedError(f"file: must have at most {limits.megabytes:g} MB, got more; make it smaller", 413, "file")
    return RefusedError(f"body: must have at most {limits.json_bytes} bytes, got more; make it shorter", 413, "body")


class TooMuchError(Exception):
    """A body is longer than it may be."""


class _Counted:
    """What a client sends, up to so many bytes."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._left = receive, most

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise TooMuchError
        return message


async def _answer(refusal: RefusedError, send: Send) -> None:
    body = json.dumps({"error": str(refusal), "field": refusal.field}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
