"""The page's server: a fixed table of files and one WebSocket a tab, on this machine only.

The page asks for each step, so the dream runs at the pace of the slower of the two and nothing
queues up. Sessions outlive a dropped connection for a while; all of them share one world and one
thread that steps it.
"""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from worldsim.core import WorldError, WorldModel

from .guard import Guard
from .handover import Company
from .keep import keep
from .messages import TEXT_LIMIT, Choose, Message, Reset, Rewind, Sample, Save, Say, Step, parse
from .session import Moment, Session

ASSETS = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
MOST_SESSIONS = 4
MOST_CONNECTIONS = 32
LOOPBACK = ("127.0.0.1", "localhost", "::1")
BUSY, ELSEWHERE = 1013, 4001  # close codes: try again later; opened in another tab


@dataclass
class Seat:
    """A session and the socket that holds it, None while the connection is down."""

    session: Session
    socket: WebSocket | None = None
    left: float = field(default_factory=time.monotonic)


class Server:
    """Sessions of one world and the sockets that play them.

    world: what is dreamt. keep_in: folder that films and recordings are written to. company: who
    may be with a player.
    """

    def __init__(self, world: WorldModel, keep_in: Any, company: Company) -> None:
        self.world, self.keep_in, self.company = world, keep_in, company
        self.seats: dict[str, Seat] = {}
        self._worker = ThreadPoolExecutor(1, "worldsim-play")

    def app(self, hosts: list[str], token: str) -> Guard:
        """The guarded ASGI application."""
        routes = [Route(path, _asset(*asset)) for path, asset in ASSETS.items()]
        app = Starlette(routes=[*routes, WebSocketRoute("/play", self.play)])
        return Guard(app, hosts, token)

    @property
    def message_limit(self) -> int:
        """Bytes of the largest message: a start clip in base64, and what is around it."""
        spec = self.world.spec
        return int(np.prod(spec.frame_shape)) * spec.chunk * spec.context * 4 // 3 + TEXT_LIMIT

    async def play(self, socket: WebSocket) -> None:
        """One connection, from its first frame to its end."""
        name = await self._sit(socket)
        await socket.accept()
        if name is None:
            await socket.close(BUSY, "every seat is taken: close another tab")
            return
        seat = self.seats[name]
        try:
            await self._converse(socket, seat.session, name)
        except (WebSocketDisconnect, RuntimeError):  # gone while something was on its way
            pass
        finally:
            if seat.socket is socket:
                seat.socket, seat.left = None, time.monotonic()

    async def _converse(self, socket: WebSocket, session: Session, name: str) -> None:
        await socket.send_text(json.dumps(described(session, name)))
        first = partial(framed, session, session.now, 0.0, time.perf_counter())
        await socket.send_bytes(await self._work(first))
        while True:
            text = await socket.receive_text()
            try:
                message, sent = parse(text)
                reply: str | bytes = await self._work(partial(self._answer, session, message, sent))
            except WorldError as error:
                reply = json.dumps({"type": "error", "text": str(error)})
            except OSError as error:  # a full disk, a folder that may not be written
                reply = json.dumps({"type": "error", "text": f"not saved: {error}"})
            if isinstance(reply, bytes):
                await socket.send_bytes(reply)
            else:
                await socket.send_text(reply)

    def _answer(self, session: Session, message: Message, sent: float) -> str | bytes:
        began = time.perf_counter()
        match message:
            case Step():
                moment = session.step(message.keys, message.action, message.driver)
            case Reset():
                moment = session.reset(message.seed, message.pixels, message.real)
            case Rewind():
                moment = session.rewind(message.step)
            case Sample():
                moment = session.sample(message.num_steps)
            case Say():
                moment = session.say(message.text)
            case Choose():
                moment = session.choose(message.policy)
            case Save():
                path = keep(session, message.what, self.keep_in)
                return json.dumps({"type": "saved", "what": message.what, "path": str(path)})
        return framed(session, moment, sent, began)

    async def _sit(self, socket: WebSocket) -> str | None:
        """The name of the seat that a connection takes: its own again, or a new one, or none."""
        name = socket.query_params.get("session", "")
        if name in self.seats:
            seat = self.seats[name]
            before, seat.socket = seat.socket, socket
            if before is not None:
                with suppress(RuntimeError):
                    await before.close(ELSEWHERE, "opened in another tab")
            return name
        if len(self.seats) >= MOST_SESSIONS:
            empty = [key for key, seat in self.seats.items() if seat.socket is None]
            if not empty:
                return None
            del self.seats[min(empty, key=lambda key: self.seats[key].left)]
        name = secrets.token_urlsafe(12)
        seed = secrets.randbelow(10_000)
        new = partial(Session, self.world, seed=seed, company=self.company)
        session = await self._work(new)
        self.seats[name] = Seat(session, socket)
        return name

    async def _work(self, job: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, job)


def described(session: Session, name: str) -> dict[str, Any]:
    """What the page needs to know of the world before the first frame."""
    spec = session.world.spec
    action = asdict(spec.action) | {"shape": list(spec.action.shape)}
    return {
        "type": "world", "session": name, "name": spec.name, "frame_shape": spec.frame_shape,
        "chunk": spec.chunk, "rate": spec.fps / spec.chunk, "time_limit": spec.time_limit,
        "action": action, "keys": [asdict(key) for key in session.controls.keys],
        "context": spec.context, "fps": spec.fps,
        "text": session.takes_text, "policies": list(session.company.policies),
        "policy": session.handover.name, "real": session.company.real is not None,
    }  # fmt: skip


def framed(session: Session, moment: Moment, sent: float, began: float) -> bytes:
    """A frame message: header length (4 bytes, little endian), JSON header, a PNG or two.

    A PNG holds the step's frames below each other, the dream's and, where the header's `real` is
    its length and not 0, the real environment's. `sent` is the page's clock, given back; `began`
    is when work on it began.
    """
    advice = advised(session)
    header = {
        "time": sent, "took": 1000 * (time.perf_counter() - began), "advice": advice,
        "seed": session.seed, "step": moment.step,
        "first": session.moments[0].step, "last": session.moments[-1].step,
        "reward": moment.reward, "total": moment.total, "trust": moment.trust,
        "continue_prob": moment.continue_prob, "over": moment.over,
        "terminated": moment.terminated, "reason": moment.reason, "driver": moment.driver,
        "real": len(real := b"" if moment.real is None else png(moment.real)),
        "real_total": moment.real_total,
    }  # fmt: skip
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + png(moment.frames) + real


def advised(session: Session) -> dict[str, Any] | None:
    """What the chosen policy would do next: the action, and the keys that are nearest to it."""
    action = session.advice
    if action is None:
        return None
    values = np.atleast_1d(np.asarray(action, np.float64)).round(4).tolist()
    return {"action": values, "keys": session.controls.nearest(action)}


def png(frames: np.ndarray) -> bytes:
    """Frames (c, H, W, 3) uint8 below each other, without loss."""
    out = io.BytesIO()
    Image.fromarray(frames.reshape(-1, *frames.shape[2:])).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _asset(name: str, kind: str) -> Callable[[Request], Response]:
    content = (files("worldsim.play") / "page" / name).read_bytes()
    return lambda request: Response(content, media_type=kind)


def serve(
    world: WorldModel, keep_in: Any, host: str = "127.0.0.1", port: int = 0,
    allowed: tuple[str, ...] = (), ready: Callable[[str], None] = print,
    company: Company = Company(),  # noqa: B008
) -> None:  # fmt: skip
    """Serve the page until Ctrl-C.

    host: an address of this machine; not 0.0.0.0, as the page's address must be known exactly.
    port: 0 takes a free one. allowed: further "name:port" under which the browser sees this server,
    say of a tunnel. ready: called with the page's address, which holds the launch's token.
    company: a policy to hand over to, the real environment.
    """
    if host in ("0.0.0.0", "::", ""):
        raise WorldError(
            f"host: expected one address of this machine, got {host!r}; name that by which the "
            "browser reaches it, or keep 127.0.0.1 and tunnel: ssh -L 8000:127.0.0.1:8000"
        )
    server, token = Server(world, keep_in, company), secrets.token_urlsafe(24)
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    names = LOOPBACK[:2] if host in LOOPBACK else (host,)
    hosts = [f"{name}:{port}" for name in names] + list(allowed)
    config = uvicorn.Config(
        server.app(hosts, token), log_level="warning", access_log=False, server_header=False,
        lifespan="off", ws_max_size=server.message_limit, ws_max_queue=4,
        limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=1,
    )  # fmt: skip
    ready(f"http://{names[0]}:{port}/#{token}")
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise WorldError(
            f"host, port: expected an address of this machine and a free port, got {host}:{port} "
            f"({error}); --port 0 takes a free one, --host 127.0.0.1 is always there"
        ) from error
