"""Where videos are processed: in this process, or on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stf_depth.errors import ConfigError

if TYPE_CHECKING:
    from stf_depth.executors.base import Executor

__all__ = ["make_executor"]


def make_executor(name: str, ray_address: str | None = None) -> Executor:
    """``local`` or ``ray``. Raises ConfigError for another name, MissingExtraError where Ray is not installed."""
    if name == "local":
        from stf_depth.executors.local import LocalExecutor

        return LocalExecutor()
    if name == "ray":
        from stf_depth.executors.ray import RayExecutor

        return RayExecutor(ray_address)
    raise ConfigError(f"unknown executor '{name}'", expected="local or ray")
