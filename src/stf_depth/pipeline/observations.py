"""What was inferred about a video, opened lazily for fusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stf_depth.cache.store import StageStore
from stf_depth.frames import MappedFrames
from stf_depth.fusion.inputs import ShotInputs, StructureMaps
from stf_depth.pipeline.plan import VideoPlan
from stf_depth.pipeline.views import ShotFrames, as_disparity, merge_roles
from stf_depth.types import Ambiguity, CameraPath, Frames, Representation, Shot

__all__ = ["Observations", "observe", "open_rgb", "open_roles"]


@dataclass(frozen=True)
class Observations:
    """Everything that was inferred about a video, lazily read, at each network's own size.

    guess_confidence: of the stand-in that is the depth of shots without a reliable camera; None where a network's depth
    is fused.
    """

    rgb: Frames
    depth: Frames
    valid: Frames
    representation: Representation
    ambiguity: Ambiguity
    roles: Frames | None
    segments: Frames | None
    segments_are_classes: bool
    cameras: list[CameraPath]
    structure: StructureMaps | None
    guess_confidence: float | None = None

    def of_shot(self, number: int, shot: Shot) -> ShotInputs:
        """The part that belongs to one shot, as fusion takes it."""

        def cut(frames: Frames | None) -> Any:
            return None if frames is None else ShotFrames(frames, shot)

        # Without a reliable camera the structure is a stand-in, no evidence to fuse with.
        camera = self.cameras[number] if self.cameras else None
        is_reliable = camera is not None and camera.is_reliable
        structure = self.structure if is_reliable else None
        if structure is not None:
            structure = StructureMaps(cut(structure.disparity), cut(structure.confidence))
        return ShotInputs(
            rgb=cut(self.rgb),
            disparity=cut(as_disparity(self.depth, self.representation)),
            valid=cut(self.valid),
            ambiguity=self.ambiguity,
            roles=cut(self.roles),
            segments=cut(self.segments),
            segments_are_classes=self.segments_are_classes,
            camera=camera,
            structure=structure,
            trust=1.0 if is_reliable or self.guess_confidence is None else self.guess_confidence,
            sees_sky=self.guess_confidence is None,
        )


def observe(plan: VideoPlan, cameras: list[CameraPath], structure: StageStore | None) -> Observations:
    """Open the finished stages of a video."""
    maps = None
    if structure is not None:
        maps = StructureMaps(structure.frames("disparity"), structure.frames("confidence"))
    return Observations(
        rgb=open_rgb(plan),
        **_depth_observation(plan, structure),
        roles=open_roles(plan),
        segments=_open_segments(plan),
        segments_are_classes="panoptic" not in plan.keys,
        cameras=cameras,
        structure=maps,
        guess_confidence=plan.config.geometry.fallback_confidence if plan.depth_from_geometry else None,
    )


def open_rgb(plan: VideoPlan) -> Frames:
    """Decoded frames at the working size."""
    return plan.store("frames").frames("rgb")


def open_roles(plan: VideoPlan) -> Frames | None:
    """Roles of all pixels: panoptic, completed by semantic; None without either."""
    panoptic, semantic = (
        plan.store(task).frames("roles") if task in plan.keys else None for task in ("panoptic", "semantic")
    )
    return merge_roles(panoptic, semantic)


def _open_segments(plan: VideoPlan) -> Frames | None:
    task = next((task for task in ("panoptic", "semantic") if task in plan.keys), None)
    return None if task is None else plan.store(task).frames("ids")


def _depth_observation(plan: VideoPlan, structure: StageStore | None) -> dict[str, Any]:
    if structure is not None and plan.depth_from_geometry:
        disparity = structure.frames("disparity")
        return {
            "depth": disparity,
            "valid": MappedFrames(lambda values: np.isfinite(values) & (values > 0), disparity),
            "representation": Representation.DISPARITY,
            "ambiguity": Ambiguity.SCALE,
        }
    store = plan.store("depth")
    representation, ambiguity = store.extra(0)[0]
    return {
        "depth": store.frames("depth"),
        "valid": store.frames("valid"),
        "representation": Representation(representation),
        "ambiguity": Ambiguity(ambiguity),
    }
