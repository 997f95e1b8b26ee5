"""Web application of the playground: the page, and the steps of a session as JSON, one at a time."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
import zipfile
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from metake.errors import MetakeError
from metake.playground.content import described
from metake.playground.examples import examples
from metake.playground.session import Session
from metake.playground.steps import STEPS
from metake.playground.theory_figures import answer as theory
from metake.requests import one_line
from metake.shipped import ASSETS

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PAGES = ASSETS / "playground"
FILES = {
    "/": (PAGES / "index.html", "text/html"),
    "/page.css": (ASSETS / "page.css", "text/css"),
    "/playground.css": (PAGES / "playground.css", "text/css"),
    "/playground.js": (PAGES / "playground.js", "text/javascript"),
}
MOST_BYTES = 100_000  # of a request; the page sends texts and numbers only
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Playground:
    """Handlers of the application. Steps that use the model run one at a time, in the order of their arrival.

    Args:
        session: the session.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.waiting = 0
        self._turn = asyncio.Lock()

    async def _queued(self, work: Callable[[], Any]) -> Any:
        """Result of a step, after those that arrived before it."""
        self.waiting += 1
        try:
            async with self._turn:
                return await run_in_threadpool(work)
        finally:
            self.waiting -= 1

    async def file(self, request: Request) -> Response:
        """A file of the page.

        Args:
            request: the request.

        Returns:
            The file.
        """
        path, kind = FILES[request.url.path]
        return FileResponse(path, media_type=kind, headers=HEADERS)

    async def state(self, _: Request) -> Response:
        """Model, methods, edits and examples.

        Returns:
            JSON.
        """
        return _json({**described(self.session), "examples": examples(self.session.model.name)})

    async def queue(self, _: Request) -> Response:
        """Number of steps that run or wait.

        Returns:
            JSON.
        """
        return _json({"waiting": self.waiting, "revision": self.session.revision})

    async def step(self, request: Request) -> Response:
        """A step of the session.

        Args:
            request: JSON with the step's values.

        Returns:
            JSON.
        """
        given, step = await _given(request), STEPS[request.url.path.rpartition("/")[2]]
        return _json(await self._queued(lambda: step(self.session, given)))

    async def theory(self, request: Request) -> Response:
        """Figures of the theory for some values of the sliders; the model is not used.

        Args:
            request: JSON with the values.

        Returns:
            JSON.
        """
        given = await _given(request)
        return _json(await run_in_threadpool(lambda: theory(given)))

    async def export(self, request: Request) -> Response:
        """All edits in a format, as a zip file.

        Args:
            request: JSON with `form`.

        Returns:
            The file; it is removed after it has been sent.
        """
        form = str((await _given(request)).get("form", ""))
        path = await self._queued(lambda: zipped(self.session, form))
        name = f"{one_line(self.session.model.name).replace('/', '-')}-{form}.zip"
        return FileResponse(
            path, filename=name, headers=HEADERS, media_type="application/zip",
            background=BackgroundTask(path.unlink, missing_ok=True),
        )  # fmt: skip


def zipped(session: Session, form: str) -> Path:
    """Export of a session as a temporary zip file.

    Args:
        session: the session.
        form: the format.

    Returns:
        Path of the file.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session.export(form, folder)
        with (
            tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as file,
            zipfile.ZipFile(file, "w") as zip_file,
        ):
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                zip_file.write(path, path.relative_to(folder))
    return Path(file.name)


def _json(content: Any, status: int = 200) -> Response:
    return JSONResponse(content, status, HEADERS)


async def _given(request: Request) -> dict[str, Any]:
    """Values of a request. Only the page itself may send one: not a form or a script of another site."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise MetakeError("the request is from another site; open the playground's own page")
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise MetakeError("the request must be JSON")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise MetakeError(f"the request is longer than {MOST_BYTES} bytes; shorten the texts")
    try:
        given = json.loads(body)
        json.dumps(given, ensure_ascii=False).encode()  # a lone surrogate is no text
    except (ValueError, RecursionError) as error:
        raise MetakeError("the request is not JSON") from error
    if not isinstance(given, dict):
        raise MetakeError("the request must be a JSON object")
    return given


def _error(error: Exception) -> Response:
    """An error as one line."""
    if isinstance(error, MetakeError):
        return _json({"error": _line(str(error))}, 400)
    line = f"internal error: {type(error).__name__}: {error}"
    print(f"metake: {_line(line)}", file=sys.stderr)
    return _json({"error": _line(line)}, 500)


def _line(text: str) -> str:
    return " ".join(text.split())


def _name_of(host: str) -> str | None:
    """Name in a Host header; None if it has no such form."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class Guard:
    """Middleware that refuses requests to other hosts, and turns every exception into an error of one line.

    Args:
        app: the application.
        hosts: names that it may be reached by; empty for any.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: Collection[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request.

        Args:
            scope: of ASGI, as are the others.
            receive: source of the request.
            send: destination of the response.

        Raises:
            MetakeError: another host name; it becomes the error line.
        """
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            host = Request(scope).headers.get("host", "")
            if self.hosts and _name_of(host) not in self.hosts:
                raise MetakeError(
                    "the request is to another host name; open the address that the terminal shows"
                )
            await self.app(scope, receive, send)
        except Exception as error:
            await _error(error)(scope, receive, send)


def application(session: Session, host: str = LOOPBACK[0]) -> Starlette:
    """The web application.

    Args:
        session: the session.
        host: address that it is served at. At a loopback address, requests to another host name are refused, so that no
            site can reach it by a name of its own.

    Returns:
        The application.
    """
    playground, get, post = Playground(session), ["GET"], ["POST"]
    return Starlette(
        routes=[
            *(Route(path, playground.file, methods=get) for path in FILES),
            Route("/api/state", playground.state, methods=get),
            Route("/api/queue", playground.queue, methods=get),
            Route("/api/theory", playground.theory, methods=post),
            Route("/api/export", playground.export, methods=post),
            *(Route(f"/api/{name}", playground.step, methods=post) for name in STEPS),
        ],
        middleware=[Middleware(Guard, hosts=LOOPBACK if host in LOOPBACK else ())],
    )


def bound_socket(host: str, port: int) -> socket.socket:
    """Socket of an address, before a model is loaded.

    Args:
        host: the address.
        port: the port; 0 takes a free one.

    Returns:
        The socket.

    Raises:
        MetakeError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise MetakeError(f"--host {host} --port {port}: {error.strerror}; give another --port") from error


def web_server(app: Starlette) -> uvicorn.Server:
    """Server of an application; `run(sockets=[...])` serves until Ctrl-C.

    Args:
        app: the application.

    Returns:
        The server.
    """
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    )
