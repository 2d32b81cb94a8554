"""STF-Depth: semantic and temporal fusion depth estimation for video.

>>> import stf_depth
>>> result = stf_depth.process("clip.mp4", preset="offline")  # doctest: +SKIP
>>> result.depth[0].shape  # doctest: +SKIP
(360, 640)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["DepthResult", "__version__", "open_result", "process"]

if TYPE_CHECKING:
    from stf_depth.api import open_result, process
    from stf_depth.result import DepthResult

_HOMES = {"process": "stf_depth.api", "open_result": "stf_depth.api", "DepthResult": "stf_depth.result"}


def __getattr__(name: str) -> Any:
    # Importing the package stays light: torch and its friends load with the first name that needs them.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'stf_depth' has no attribute '{name}'")
