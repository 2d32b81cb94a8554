"""The networks of one run, made once and shared by all its videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stf_depth.config import RunConfig
from stf_depth.perception.base import (
    BackendInfo,
    DepthBackend,
    DepthFromGeometry,
    FlowBackend,
    IndexedDepth,
    IndexedSegments,
    SegmentBackend,
)
from stf_depth.perception.registry import create

__all__ = ["Backends"]


@dataclass(frozen=True)
class Backends:
    """What looks at the frames. ``semantic`` and ``panoptic`` are None where switched off."""

    depth: DepthBackend | IndexedDepth | DepthFromGeometry
    semantic: SegmentBackend | IndexedSegments | None
    panoptic: SegmentBackend | IndexedSegments | None
    flow: FlowBackend

    @classmethod
    def of(cls, config: RunConfig) -> Backends:
        """Make the backends that a configuration names; weights load when they are first used.

        Raises SpecError, ModelError, LicenceError, MissingExtraError, or DeviceError for a device that is not there:
        fusion needs it too, long after the networks.
        """
        if config.device not in ("auto", "cpu"):
            # Loaded here, so that a run without networks on the CPU starts without torch.
            from stf_depth.perception.device import resolve_device

            resolve_device(config.device)
        made: dict[str, Any] = {
            task: create(
                task,
                getattr(config, task),
                device=config.device,
                precision=config.precision,
                commercial=config.commercial,
            )
            for task in ("depth", "semantic", "panoptic", "flow")
        }
        return cls(**made)

    def infos(self) -> dict[str, BackendInfo]:
        """Description of every backend in use, by task."""
        used = {"depth": self.depth, "semantic": self.semantic, "panoptic": self.panoptic, "flow": self.flow}
        return {task: backend.info for task, backend in used.items() if backend is not None}
