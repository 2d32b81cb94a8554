"""``manifest.json``: what a result was made from, by what, and how."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from stf_depth import __version__
from stf_depth.cache.files import read_json
from stf_depth.errors import OutputError
from stf_depth.perception.base import BackendInfo
from stf_depth.pipeline.fuse import shot_ambiguities
from stf_depth.pipeline.perceive import Perceived, unusable_maps
from stf_depth.pipeline.plan import VideoPlan
from stf_depth.result import MANIFEST, camera_to_json
from stf_depth.types import CameraPath, Intrinsics, MotionKind, Shot
from stf_depth.video.discover import InputItem

__all__ = [
    "build_manifest",
    "describe_model",
    "no_camera",
    "package_versions",
    "peak_memory_mb",
    "refuse_anothers_result",
    "software",
]

_PACKAGES = (
    "av",
    "numpy",
    "opencv-python-headless",
    "pycolmap",
    "scipy",
    "torch",
    "torchvision",
    "transformers",
    "zarr",
)


def build_manifest(
    plan: VideoPlan,
    item: InputItem,
    perceived: Perceived,
    cameras: list[CameraPath],
    store: Any,
    *,
    flicker: Mapping[str, float | None],
    seconds_by_stage: Mapping[str, float],
) -> dict[str, Any]:
    """Everything needed to read, cite and repeat a result, as JSON values."""
    return {
        "software": software(),
        "packages": package_versions(),
        "input": {
            "path": str(item.path.resolve()),
            "name": item.name,
            "sha256": plan.input_digest,
            "frames": perceived.frame_count,
            "failed_frames": perceived.failed_frames,
            "damaged_frames": perceived.damaged_frames,
            "corrected_times": perceived.corrected_times,
            "unusable_maps": unusable_maps(plan, perceived),
            "size_wh": list(perceived.size_wh),
        },
        "key": plan.keys["fusion"],
        "config": plan.config.model_dump(mode="json"),
        "models": {task: describe_model(info) for task, info in plan.backends.infos().items()},
        "stages": {stage: {"key": key, "path": str(plan.stage_folder(stage))} for stage, key in plan.keys.items()},
        "shots": _shots(plan, perceived, cameras, store),
        "flicker_percent": dict(flicker),
        "seconds_by_stage": {stage: round(seconds, 3) for stage, seconds in seconds_by_stage.items()},
        "peak_memory_mb": peak_memory_mb(),
        "exports": {},
    }


def refuse_anothers_result(output: Path, source: str, digest: str | None) -> None:
    """Two videos of one name meet in one folder: raise OutputError where the result of another lies in ``output``.

    source: whole path of the input, or its address. digest: of its content, None where that has none. A video is the
    same where its content is, however its path is spelt, or where its path is: it was edited.
    """
    manifest = read_json(output / MANIFEST)
    made_from = manifest.get("input") if isinstance(manifest, dict) else None
    if not isinstance(made_from, dict) or not isinstance(path := made_from.get("path"), str):
        return
    if path == source or (digest is not None and made_from.get("sha256") == digest):
        return
    hint = "Choose another --output-dir, or remove that result"
    raise OutputError("the result of another video lies here", where=output, expected=path, got=source, hint=hint)


def software() -> dict[str, str]:
    """What made a result."""
    return {"name": "stf-depth", "version": __version__, "python": platform.python_version()}


def package_versions() -> dict[str, str]:
    """Versions of the libraries that decide a result."""
    return {name: metadata.version(name) for name in _PACKAGES}


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def describe_model(info: BackendInfo) -> dict[str, Any]:
    """Which network this is, what its output means and who may use it."""
    return {
        "name": info.name,
        "weights": info.weights,
        "weights_digest": info.weights_digest,
        "licence": info.licence.name,
        "commercial": info.licence.commercial,
        "representation": info.representation,
        "ambiguity": info.ambiguity,
    }


def _shots(plan: VideoPlan, perceived: Perceived, cameras: list[CameraPath], store: Any) -> list[dict[str, Any]]:
    width, height = plan.output_wh(perceived.size_wh)
    ambiguities = shot_ambiguities(store)
    shots = []
    for number, shot in enumerate(perceived.shots):
        camera = _camera(cameras[number], width, height) if cameras else no_camera(shot, width, height)
        fallback = plan.depth_from_geometry and camera["kind"] != MotionKind.PARALLAX
        shots.append(
            {
                "start": shot.start,
                "stop": shot.stop,
                "ambiguity": ambiguities[number],
                "camera": camera,
                "fallback": camera["reason"] or "the camera does not move" if fallback else None,
            }
        )
    return shots


def _camera(path: CameraPath, width: int, height: int) -> dict[str, Any]:
    k = path.intrinsics.resized(width, height)
    return {**camera_to_json(path), "intrinsics": [k.fx_px, k.fy_px, k.cx_px, k.cy_px, width, height]}


def no_camera(shot: Shot, width: int, height: int) -> dict[str, Any]:
    """The camera of a shot that was not solved: a guessed focal length and no pose."""
    # Nothing was solved: a common focal length stands in, and no pose counts as solved.
    focal = 0.9 * max(width, height)
    k = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
    count = len(shot)
    return {
        "kind": MotionKind.UNSOLVED.value,
        "intrinsics": [k.fx_px, k.fy_px, k.cx_px, k.cy_px, width, height],
        "world_from_cam": [[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]] * count,
        "solved": [False] * count,
        "reliability": [0.0] * count,
        "inlier_fraction": 0.0,
        "triangulation_angle_degrees": 0.0,
        "reprojection_error_px": 0.0,
        "reason": "the camera was not solved in this run",
    }
