"""Who may talk to the page's server: the page it served itself, in the browser it was opened in.

Any web page that the user visits can send requests to 127.0.0.1, and a name that it controls can be
made to point there (DNS rebinding). So the Host header must name this server exactly, the Origin
must be this server's own (a WebSocket without one is refused, too), and a socket needs the token
of this launch, which only the printed address holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from secrets import compare_digest
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def content_security_policy(host: str) -> str:
    """Only the server's own files, and its own socket."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src blob:; "
        f"connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


class Guard:
    """ASGI middleware: refuses strangers, and adds what keeps the page from being misused.

    app: what is guarded. hosts: "name:port" as browsers write it. token: of this launch.
    """

    def __init__(self, app: App, hosts: Iterable[str], token: str) -> None:
        self.app, self.token = app, token
        self.hosts = frozenset(hosts)
        self.origins = frozenset(f"http://{host}" for host in self.hosts)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it before anything of it is read."""
        if scope["type"] == "http":
            if not self.admits(scope):
                await _refuse(send)
                return
            await self.app(scope, receive, _with_headers(send, _header(scope, b"host")[0]))
        elif scope["type"] == "websocket":
            if not (self.admits(scope) and self._holds_token(scope)):
                await receive()
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def admits(self, scope: Scope) -> bool:
        """Whether Host and Origin are this server's."""
        host, origin = _header(scope, b"host"), _header(scope, b"origin")
        if len(host) != 1 or host[0] not in self.hosts:
            return False
        if scope["type"] == "websocket":
            return len(origin) == 1 and origin[0] in self.origins
        return scope["method"] in ("GET", "HEAD") and set(origin) <= self.origins

    def _holds_token(self, scope: Scope) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        return len(given) == 1 and compare_digest(given[0].encode(), self.token.encode())


def _header(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


async def _refuse(send: Any) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": b"refused\n"})


def _with_headers(send: Any, host: str) -> Any:
    extra = {**HEADERS, "content-security-policy": content_security_policy(host)}

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            pairs = [(key.encode(), value.encode()) for key, value in extra.items()]
            message = {**message, "headers": [*message.get("headers", []), *pairs]}
        await send(message)

    return sending
