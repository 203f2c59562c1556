"""An authorizer of a Jupyter server: who says so with the request may only read, and one resource alone."""

from __future__ import annotations

from typing import Any

from jupyter_server.auth import Authorizer


class Readers(Authorizer):
    """Lets everybody do everything, but those who name what they may read."""

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        """Whether a request may do this."""
        readable = handler.request.headers.get("x-only-reads")
        return readable is None or (action, resource) == ("read", readable)
