"""Who may come in, and from where: tokens, host names, origins, and the headers that browsers obey."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Collection, Mapping
from hashlib import sha256
from urllib.parse import urlsplit

from kitaru_nb.errors import KitaruError
from kitaru_nb.surfaces.http.tokens import Tokens
from kitaru_nb.surfaces.operations.base import Caller, Role
from kitaru_nb.surfaces.operations.limits import RateLimit
from kitaru_nb.surfaces.operations.perform import TooManyTries

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
#: Sent with every response of the stand-alone server.
HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_NAME_AND_PORT = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::\d*)?")


class Refused(KitaruError):
    """The request doesn't get in. ``status`` is what to answer."""

    def __init__(self, status: int, message: str, *, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.status = status


class Gate:
    """Lets requests of a stand-alone server in, or raises `Refused`. Thread-safe.

    Args:
        owner: name of whoever started the server; holds ``secret``, the token that ends with the server.
        hosts: names, besides this machine's own, by which browsers may call it.
    """

    def __init__(self, tokens: Tokens, *, owner: str, secret: str, port: int, hosts: Collection[str] = ()) -> None:
        self._tokens = tokens
        self._owner = owner
        self._secret = secret
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self.cookie = f"kitaru-{port}"  # browsers keep one jar for all ports of a host
        self._failures = RateLimit(burst=20, seconds=3.0)
        self._familiar: set[bytes] = set()

    def check_host(self, host: str | None) -> None:
        """Refuse host names of others: a page whose name was bound to this address must not read from here."""
        name = host_name(host or "")
        if name in self._hosts or _is_address(name):
            return
        raise Refused(
            421,
            f"This server isn't called {name[:100]!r}.",
            fix="kitaru server --allow-host NAME, for each of its names",
        )

    def check_page(self, method: str, headers: Mapping[str, str]) -> None:
        """Refuse what pages of other sites load or send without anybody following a link (images, frames, forms): it
        could use up the tries that a person at this address has."""
        if headers.get("sec-fetch-site") not in ("cross-site", "same-site"):
            return
        followed = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
        if not (followed and method in _SAFE):
            raise Refused(403, "The request comes from a page of another site.")

    def check_origin(self, method: str, headers: Mapping[str, str]) -> None:
        """Refuse what pages of others send along with this one's cookie."""
        if method in _SAFE:
            return
        origin = headers.get("origin")
        if origin is not None:
            if urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
                raise Refused(403, "The request comes from a page of another origin.")
        elif headers.get("sec-fetch-site") != "same-origin" and "x-kitaru" not in headers:
            # A page of others can't send this header along, and browsers send an Origin with what changes something.
            raise Refused(403, "The request doesn't say where it comes from.", fix="X-Kitaru: 1")

    def caller(self, method: str, headers: Mapping[str, str], address: str, *, via: str = "http") -> Caller:
        """Who asks, by the token in ``Authorization`` or the cookie."""
        secret, from_cookie = self._given(headers)
        if secret is None:
            raise Refused(401, "This server asks for a token.", fix="Authorization: Bearer TOKEN")
        if from_cookie:
            self.check_origin(method, headers)
        return self.check_secret(secret, address, via=via)

    def check_secret(self, secret: str, address: str, *, via: str = "http") -> Caller:
        """Who has this token. Raises `TooManyTries` after too many wrong ones from one address; who came in before
        still does, so that nobody who shares an address with others can be locked out by them."""
        trace = sha256(secret.encode("utf-8", "surrogatepass")).digest()
        if trace not in self._familiar and (seconds := self._failures.wait(address)):
            raise TooManyTries(seconds, "Too many wrong tokens came from this address")
        known = self.known(secret)
        if known is None:
            self._familiar.discard(trace)
            self._failures.take(address)
            raise Refused(401, "The token isn't valid (any more).", fix="kitaru server token create NAME --role ROLE")
        self._familiar.add(trace)
        return Caller(*known, via)

    def known(self, secret: str) -> tuple[str, Role] | None:
        """Name and role of the one who has this token, or None."""
        if secrets.compare_digest(secret.encode("utf-8", "surrogatepass"), self._secret.encode()):
            return self._owner, Role.ADMIN
        return self._tokens.find(secret)

    def secret_of(self, headers: Mapping[str, str]) -> str | None:
        """The token that a request carries."""
        return self._given(headers)[0]

    def _given(self, headers: Mapping[str, str]) -> tuple[str | None, bool]:
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() in ("bearer", "token") and secret.strip():
            return secret.strip(), False
        found = cookie_of(headers.get("cookie", ""), self.cookie)
        return found, found is not None


def cookie_of(header: str, name: str) -> str | None:
    """A cookie's value. Other programs of this host put theirs into the same header, in whatever form."""
    for part in header.split(";"):
        key, equals, value = part.partition("=")
        if equals and key.strip() == name:
            return value.strip().strip('"')
    return None


def host_name(host: str) -> str:
    """The name in a Host header, without the port; of what can't be one, all of it."""
    text = host.strip().lower()
    found = _NAME_AND_PORT.fullmatch(text)
    return text if found is None else found[1] or found[2] or ""


def _is_address(name: str) -> bool:
    # No name server says what an address means, so it can't be bound to another.
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
