"""Who may see the dashboard, and what a browser may do with it.

Invariant: a token is compared in constant time, and never stored in a page, an address that stays, or a log. Without
one, the dashboard answers on loopback only, and only to who calls it by a name of loopback: a page of another site
that makes its own name point here gets nothing.
"""

import hashlib
import hmac
import ipaddress
from urllib.parse import urlsplit

from collector.settings import LOOPBACK_HOSTS

COOKIE = "dashboard"
BEARER = "Bearer "
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",  # an address with a token in it must not be told to anyone
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Whether a host, by its name or address, is this machine's own loopback."""
    try:
        return host in LOOPBACK_HOSTS or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """The check of each request; without a token every caller on loopback may pass."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def is_name_allowed(self, host_header: str) -> bool:
        """Whether the name that a request calls the dashboard by is one of its own."""
        return self._token is not None or is_loopback(urlsplit(f"//{host_header}").hostname or "")

    def is_token(self, given: str) -> bool:
        """Whether it is the token; False where there is none."""
        return self._token is not None and _is_same(given, self._token)

    def may_pass(self, authorization: str | None, cookie: str | None) -> bool:
        """Whether a request may pass, by its header and its cookie."""
        if self._token is None:
            return True
        if authorization is not None and authorization.startswith(BEARER):
            return self.is_token(authorization.removeprefix(BEARER))
        return cookie is not None and _is_same(cookie, self.cookie)

    @property
    def cookie(self) -> str:
        """What a browser keeps in the token's place: made from it, but it cannot be turned back."""
        return hmac.digest((self._token or "").encode(), COOKIE.encode(), hashlib.sha256).hex()


def _is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
