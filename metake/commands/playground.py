"""`metake playground`: edit facts and compare the theory with the solver's results in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from metake.commands.common import load_model
from metake.commands.option_types import AsJson, Chats, Device, Dtype, ModelOrDemo, Modules
from metake.console import set_interrupt_message
from metake.extras import needs
from metake.files import as_json as to_json

Host = Annotated[
    str,
    typer.Option("--host", help="Address to serve at; by default only this machine reaches it."),
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")]


def playground(
    model: ModelOrDemo = "demo",
    port: Port = 7860,
    host: Host = "127.0.0.1",
    chat: Chats = False,
    device: Device = None,
    dtype: Dtype = "float32",
    modules: Modules = None,
    as_json: AsJson = False,
) -> None:
    """Serve a page to edit facts, compare answers, undo, export, and to compare the theory with the solver.

    The page is served until Ctrl-C. Edits stay in memory; the export of the page is the only way to keep them.

    Example: metake playground --model demo
    """
    with needs("playground"):
        from metake.playground.server import LOOPBACK, application, bound_socket, web_server
    from metake.playground.session import Session

    at = bound_socket(host, port)
    session = Session(load_model(model, device, dtype, modules, chat))
    address = f"http://{f'[{host}]' if ':' in host else host}:{at.getsockname()[1]}"
    if host not in LOOPBACK:
        typer.echo(f"note: everyone who reaches {host} can edit the model; there is no password", err=True)
    if as_json:
        typer.echo(to_json({"model": session.model.name, "url": address}))
    else:
        typer.echo(f"playground of {session.model.name}: {address} (Ctrl-C ends it)")
    set_interrupt_message("the page is no longer served; edits that were not exported are gone")
    web_server(application(session, host)).run(sockets=[at])
