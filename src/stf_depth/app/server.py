"""Starting the page: loopback for everybody on this machine, a token for everything else."""

from __future__ import annotations

import atexit
import hmac
import ipaddress
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stf_depth.app.jobs import JobQueue
from stf_depth.app.limits import AppLimits
from stf_depth.app.sessions import Sessions
from stf_depth.errors import ConfigError, MissingExtraError
from stf_depth.executors.base import Executor

if TYPE_CHECKING:
    import gradio as gr

__all__ = ["WebApp", "build_app", "check_access", "launch_options", "serve"]

_MIN_TOKEN_CHARACTERS = 8


@dataclass(frozen=True)
class WebApp:
    """The page, its queue, and the visitors' folders."""

    page: gr.Blocks
    jobs: JobQueue
    sessions: Sessions

    def close(self) -> None:
        """Stop serving, stop all jobs, and remove every visitor's files; safe to call again."""
        self.page.close(verbose=False)
        self.sessions.close()


def build_app(limits: AppLimits | None = None, *, executor: Executor | None = None) -> WebApp:
    """The page with its own queue and its own private folder, which is removed at exit at the latest.

    executor: where videos are processed, in this process when None. Raises MissingExtraError without gradio.
    """
    limits = limits or AppLimits()
    jobs = JobQueue(running=limits.running_jobs, waiting=limits.waiting_jobs)
    sessions = Sessions(jobs, keep_seconds=limits.session_seconds)
    atexit.register(sessions.close)
    # Gradio reads these when components are made: uploads belong under the private folder, and nobody is called home.
    os.environ["GRADIO_TEMP_DIR"] = str(sessions.uploads)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from stf_depth.app.page import Handlers, lay_out
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise MissingExtraError.of("gradio", "app") from error
    return WebApp(lay_out(Handlers(jobs, sessions, limits, executor)), jobs, sessions)


def serve(
    host: str = "127.0.0.1", port: int = 7860, token: str | None = None, *, limits: AppLimits | None = None
) -> None:
    """Serve the page until interrupted.

    Raises ConfigError for an address beyond this machine without a token, or for a short token; MissingExtraError
    without gradio.
    """
    check_access(host, token)
    app = build_app(limits)
    try:
        app.page.launch(**launch_options(host, port, token, limits))
    finally:
        app.close()


def check_access(host: str, token: str | None) -> None:
    """Raise ConfigError unless the address is loopback or a token of fair length guards it."""
    if token is None and not _is_loopback(host):
        raise ConfigError(
            "a page for other machines needs a token", where=host, hint="Give --token, or serve on 127.0.0.1"
        )
    if token is not None and len(token) < _MIN_TOKEN_CHARACTERS:
        raise ConfigError("the token is too short", expected=f"at least {_MIN_TOKEN_CHARACTERS} characters")


def launch_options(host: str, port: int, token: str | None, limits: AppLimits | None = None) -> dict[str, Any]:
    """Arguments of ``Blocks.launch``; raises ConfigError as ``check_access`` does."""
    check_access(host, token)
    return {
        "server_name": host,
        "server_port": port,
        "auth": None if token is None else _password_check(token),
        "auth_message": "Any name, and the token as password.",
        "share": False,
        "show_error": False,
        "max_file_size": f"{(limits or AppLimits()).upload_mb}mb",
        "ssr_mode": False,
        "mcp_server": False,
        "footer_links": [],
        "run_history": False,
        "app_kwargs": {"middleware": [_middleware()], "openapi_url": None, "docs_url": None, "redoc_url": None},
        **_looks(),
    }


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _password_check(token: str) -> Any:
    def check(_name: str, password: str) -> bool:
        return hmac.compare_digest(password.encode(), token.encode())

    return check


def _looks() -> dict[str, Any]:
    import gradio as gr

    from stf_depth.app.page import CSS

    # Fonts of the machine: named ones would be fetched from the network.
    fonts, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return {"theme": gr.themes.Default(font=fonts, font_mono=mono), "css": CSS}


def _middleware() -> Any:
    from starlette.middleware import Middleware

    return Middleware(_LocalFilesOnly)


class _LocalFilesOnly:
    """Refuses requests that would make the server fetch an address for the visitor."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = str(scope.get("path", "")).lower()
        if scope["type"] == "http" and ("file=http" in path or "/proxy=" in path):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)
