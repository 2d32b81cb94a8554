"""Looking at a result in rerun."""

from __future__ import annotations

from stf_depth.viewer.show import view

__all__ = ["view"]
