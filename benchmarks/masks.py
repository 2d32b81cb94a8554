"""What right, damaged and wrong masks do to the fusion, on rendered scenes whose masks are known exactly.

    python benchmarks/masks.py
    python benchmarks/masks.py --scenes street --frames 8 --results trial      quick; no document changes

Depth is the true one made unsteady and blurred; there is no camera, so that masks and flow are all that fusion has.
Masks: none, exact, shifted sideways, eroded so that borders have no label, missing in every second frame, and with
the roles of all segments exchanged (roads called movers, movers called sky). Where the camera stands still, the
temporal alignment error of the background and the spread over time of the moving objects' scale are measured as well.

Results go to benchmarks/results/masks.json, and as a table into docs/fusion.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import tables
from measuring import environment, save_with_table
from stf_depth.config import RunConfig
from stf_depth.evaluation.clips import GroundTruthClip
from stf_depth.evaluation.evaluate import score_prediction
from stf_depth.evaluation.predictions import ArrayPrediction
from stf_depth.evaluation.sequences import read_sequence
from stf_depth.fusion.inputs import ShotInputs
from stf_depth.fusion.shot import fuse_shot
from stf_depth.synthetic import SyntheticClip, degrade, render_clip, scene, write_sequence
from stf_depth.types import DepthMaps, Role

SCENES = ("room", "street", "forward", "static_camera_movers")
STANDING = ("static_camera_movers",)
WH, NOISE, SEED = (320, 180), 1.2, 0
SHIFT_PX, ERODED_PX = 8, 9
GROUP = "affine"

Maps = dict[str, np.ndarray]


def exact(clip: SyntheticClip) -> Maps:
    """Roles and segments as they are."""
    return {"roles": clip.roles.astype(np.uint8), "segments": clip.labels.astype(np.int32)}


def shifted(clip: SyntheticClip) -> Maps:
    """Everything to the right; the column at the border is repeated."""
    columns = np.maximum(np.arange(WH[0]) - SHIFT_PX, 0)
    return {name: values[:, :, columns] for name, values in exact(clip).items()}


def eroded(clip: SyntheticClip) -> Maps:
    """No label near the border of a segment."""
    maps, square = exact(clip), np.ones((ERODED_PX, ERODED_PX), np.uint8)
    for labels, roles in zip(maps["segments"], maps["roles"], strict=True):
        as_float = labels.astype(np.float32)
        border = cv2.dilate(as_float, square) != cv2.erode(as_float, square)
        labels[border], roles[border] = 0, Role.UNKNOWN
    return maps


def missing(clip: SyntheticClip) -> Maps:
    """No label in every second frame."""
    maps = exact(clip)
    for values in maps.values():
        values[1::2] = 0
    return maps


def exchanged(clip: SyntheticClip) -> Maps:
    """Every role another one's."""
    order = np.random.default_rng(SEED).permutation(len(Role)).astype(np.uint8)
    maps = exact(clip)
    return {**maps, "roles": order[maps["roles"]]}


MASKS: dict[str, Callable[[SyntheticClip], Maps]] = {
    "none": lambda _: {},
    "exact": exact,
    "shifted": shifted,
    "eroded": eroded,
    "missing": missing,
    "exchanged": exchanged,
}


def fused(clip: SyntheticClip, maps: DepthMaps, masks: Maps) -> DepthMaps:
    """The whole clip through the fusion of one shot."""
    inputs = ShotInputs(clip.rgb, maps.depth, maps.valid, maps.ambiguity, **masks)
    disparity = np.concatenate([chunk.disparity for chunk in fuse_shot(inputs, RunConfig())])
    return DepthMaps.of(disparity, "disparity", maps.ambiguity)


def measured(maps: DepthMaps, clip: SyntheticClip, truth: GroundTruthClip, folder: Path) -> dict[str, float]:
    """Accuracy and sharpness of the whole clip; steadiness too where only objects move."""
    still = replace(truth, world_from_cam=None, poses_absent="scored on the background alone")
    scores = score_prediction(prediction(maps), still)
    found = {name: scores.value(name, GROUP) for name in ("abs_rel", "boundary_f1")}
    if clip.name in STANDING:
        # What moves is taken out of the prediction too: it would be compared with the background behind it.
        background = score_prediction(prediction(maps, clip.roles != Role.MOVER), background_of(clip, folder))
        found |= {"background_tae": background.value("tae", GROUP), "object_scale_spread": object_spread(maps, clip)}
    return {name: round(float(value), 6) for name, value in found.items()}


def prediction(maps: DepthMaps, kept: np.ndarray | None = None) -> ArrayPrediction:
    """Depth maps to be scored, as valid as they are, or where ``kept`` as well."""
    valid = maps.valid if kept is None else maps.valid & kept
    return ArrayPrediction(maps.depth, maps.representation, maps.ambiguity, valid=valid)


def background_of(clip: SyntheticClip, folder: Path) -> GroundTruthClip:
    """The ground truth without what moves."""
    target = folder / "background"
    if not target.is_dir():
        write_sequence(replace(clip, depth=np.where(clip.roles == Role.MOVER, np.inf, clip.depth)), target)
    return read_sequence(target, d_max_m=80.0)


def object_spread(maps: DepthMaps, clip: SyntheticClip) -> float:
    """Mean over moving objects of the deviation over time of log(median disparity / true median disparity)."""
    spreads = []
    for label in np.unique(clip.labels[clip.roles == Role.MOVER]):
        seen = [t for t in range(len(clip.labels)) if (clip.labels[t] == label).sum() >= 50]
        masks = [clip.labels[t] == label for t in seen]
        pairs = zip(maps.depth[seen], clip.depth[seen], masks, strict=True)
        products = [np.median(disparity[mask]) * np.median(depth[mask]) for disparity, depth, mask in pairs]
        logs = np.log(products)
        spreads.append(float(np.std(logs)))
    return float(np.mean(spreads))


def rows_of(name: str, frames: int, folder: Path) -> list[dict[str, Any]]:
    """The input, and fused with each kind of masks."""
    clip = render_clip(scene(name), frames=frames, wh=WH, noise_sigma=NOISE)
    truth = read_sequence(write_sequence(clip, folder / "truth"), d_max_m=80.0)
    maps = degrade(clip.depth, SEED)
    rows = [{"scene": name, "masks": "(input)", **measured(maps, clip, truth, folder)}]
    for kind, make in MASKS.items():
        rows.append({"scene": name, "masks": kind, **measured(fused(clip, maps, make(clip)), clip, truth, folder)})
        print(rows[-1], flush=True)
    return rows


def markdown(content: Mapping[str, Any]) -> str:
    """The table and where it comes from."""
    heads = ["Scene", "Masks", "AbsRel ↓", "Boundary F1 ↑", "Background TAE % ↓", "Objects' scale ↓"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "---:|" * 4]
    columns = (("abs_rel", 4), ("boundary_f1", 3), ("background_tae", 2), ("object_scale_spread", 4))
    for row in content["rows"]:
        cells = [tables.number(row.get(name), digits) for name, digits in columns]
        lines.append("| " + " | ".join([row["scene"], row["masks"], *cells]) + " |")
    measured = f"Measured by `python benchmarks/masks.py` at commit {content['environment']['commit']}"
    return "\n".join([*lines, "", f"{measured} ({content['frames']} frames of 320x180)."])


def main() -> None:
    """Measure, save, and put the table where it belongs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--results", default="masks")
    arguments = parser.parse_args()
    where = environment()
    rows: list[dict[str, Any]] = []
    for name in arguments.scenes:
        with tempfile.TemporaryDirectory() as scratch:
            rows += rows_of(name, arguments.frames, Path(scratch))
    content = {"environment": where, "frames": arguments.frames, "seed": SEED, "rows": rows}
    save_with_table(arguments.results, "masks", content, "fusion.md", markdown(content))


if __name__ == "__main__":
    main()
