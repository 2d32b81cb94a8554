"""A web page to upload, run, compare and download; needs the extra ``app``."""

from __future__ import annotations

from stf_depth.app.limits import AppLimits
from stf_depth.app.server import build_app, serve

__all__ = ["AppLimits", "build_app", "serve"]
