"""``stf-depth app``."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["app"]


def app(
    host: Annotated[str, typer.Option(help="Address to listen on; anything but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    token: Annotated[str | None, typer.Option(help="Password that visitors must give.")] = None,
) -> None:
    """Serve a web page to upload, run, compare and download."""
    from stf_depth.app import serve

    serve(host=host, port=port, token=token)
