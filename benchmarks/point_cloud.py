"""Are walls straight? The exported point cloud of one frame against the depth camera's own cloud.

    python benchmarks/point_cloud.py                          processes the clip first (offline preset), then measures
    python benchmarks/point_cloud.py --result RESULT          measures a result that is there

The planes are found in the sensor's cloud. On the pixels of each, a plane is fitted to either cloud: its residual
says how straight the wall is, the angle between the two how far it leans, and the angles between planes whether the
room is bent. One factor, the median ratio of z, brings the exported cloud to metres. Writes
benchmarks/results/point_cloud.json, one entry for each --label.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import trimesh

from stf_depth.api import process
from stf_depth.evaluation.clips import GroundTruthClip
from stf_depth.evaluation.sequences import read_sequence
from stf_depth.export import export_result
from stf_depth.export.source import frame_names
from stf_depth.result import DepthResult

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results" / "point_cloud.json"
SHARED = Path(os.environ.get("STF_DEPTH_SHARED", REPOSITORY.parent / "shared"))
PLANES = 4
INLIER_M = 0.03
MIN_SHARE = 0.05
MIN_POINTS = 100


def sensor_points(truth: GroundTruthClip, frame: int) -> np.ndarray:
    """(H, W, 3) metres in the camera, NaN where the sensor saw nothing."""
    z = truth.full_truth_m(frame).astype(np.float64)
    z[(z <= 0) | (z >= truth.d_max_m)] = np.nan
    assert truth.K is not None
    v, u = np.mgrid[: z.shape[0], : z.shape[1]]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(truth.K).T
    return rays * z[..., None]


def exported_points(result: DepthResult, frame: int, folder: Path, min_confidence: float) -> np.ndarray:
    """(H, W, 3) in the export's unit: the PLY of one frame, read by trimesh and put back on its pixels."""
    files = export_result(result, "ply", folder, every=max(frame, 1), min_confidence=min_confidence)["ply"]
    name = frame_names(result)[frame]
    points = np.asarray(trimesh.load(next(path for path in files if path.stem == name)).vertices)
    camera = result.cameras[0].intrinsics
    u = np.rint(points[:, 0] / points[:, 2] * camera.fx_px + camera.cx_px).astype(int)
    v = np.rint(points[:, 1] / points[:, 2] * camera.fy_px + camera.cy_px).astype(int)
    out = np.full((camera.height_px, camera.width_px, 3), np.nan)
    out[v, u] = points
    return out


def fit_plane(points: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Total least squares: unit normal towards the camera, offset, and distances of the points (N,)."""
    centre = points.mean(axis=0)
    normal = np.linalg.svd(points - centre, full_matrices=False)[2][2]
    normal = normal if normal @ centre < 0 else -normal
    return normal, float(normal @ centre), points @ normal - normal @ centre


def find_planes(points: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Masks (H, W) of the largest planes, each the largest connected part of one RANSAC plane."""
    left, total, found = np.isfinite(points[..., 2]), np.isfinite(points[..., 2]).sum(), []
    for _ in range(3 * PLANES):
        normal, offset = ransac(points[left], rng)
        near = left & (np.abs(np.nan_to_num(points) @ normal - offset) < INLIER_M)
        near = cv2.morphologyEx(near.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9))) > 0
        near &= np.isfinite(points[..., 2])
        labels, stats = cv2.connectedComponentsWithStats(near.astype(np.uint8))[1:3]
        mask = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        left &= ~near
        # The border of a plane is where other surfaces begin.
        inner = cv2.erode(mask.astype(np.uint8), np.ones((9, 9))) > 0
        if inner.sum() >= MIN_SHARE * total:
            found.append(inner)
        if len(found) == PLANES or left.sum() < MIN_SHARE * total:
            break
    return found


def ransac(points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The plane with most points within ``INLIER_M`` of a sample."""
    sample = points[rng.integers(0, len(points), 4000)]
    best: tuple[int, np.ndarray, float] = (-1, np.zeros(3), 0.0)
    for _ in range(600):
        a, b, c = sample[rng.integers(0, len(sample), 3)]
        normal = np.cross(b - a, c - a)
        length = np.linalg.norm(normal)
        if length < 1e-6:
            continue
        normal /= length
        count = int((np.abs((sample - a) @ normal) < INLIER_M).sum())
        if count > best[0]:
            best = count, normal, float(normal @ a)
    return best[1], best[2]


def angle_degrees(first: np.ndarray, second: np.ndarray) -> float:
    """Between two unit vectors."""
    return float(np.degrees(np.arccos(np.clip(first @ second, -1, 1))))


def measure(ours: np.ndarray, sensor: np.ndarray) -> dict[str, Any]:
    """Residuals and angles of every plane, in centimetres, percent and degrees; of those left out only the pixels."""
    both = np.isfinite(ours[..., 2]) & np.isfinite(sensor[..., 2])
    factor = float(np.median(sensor[both][:, 2] / ours[both][:, 2]))
    ours = ours * factor
    planes: list[dict[str, Any]] = []
    normals: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for mask in find_planes(sensor, np.random.default_rng(0)):
        use = mask & both
        if use.sum() < MIN_POINTS:
            planes.append({"pixels": int(use.sum()), "of_pixels": int(mask.sum())})
            continue
        theirs, own = fit_plane(sensor[use]), fit_plane(ours[use])
        distance = float(np.linalg.norm(sensor[use], axis=1).mean())
        rms = [float(np.sqrt((residual**2).mean())) for residual in (own[2], theirs[2])]
        planes.append(
            {
                "pixels": int(use.sum()),
                "of_pixels": int(mask.sum()),
                "distance_m": round(distance, 3),
                "residual_cm": round(100 * rms[0], 2),
                "residual_percent_of_distance": round(100 * rms[0] / distance, 2),
                "sensor_residual_cm": round(100 * rms[1], 2),
                "median_residual_cm": round(100 * float(np.median(np.abs(own[2]))), 2),
                "leans_degrees": round(angle_degrees(own[0], theirs[0]), 2),
            }
        )
        normals[len(planes) - 1] = (own[0], theirs[0])
    angles = [
        {
            "planes": [i, j],
            "ours_degrees": round(angle_degrees(normals[i][0], normals[j][0]), 1),
            "sensor_degrees": round(angle_degrees(normals[i][1], normals[j][1]), 1),
        }
        for i, j in combinations(normals, 2)
    ]
    return {"metres_per_unit": round(factor, 5), "planes": planes, "angles": angles}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default="redkitchen", help="a sequence in the folder of measuring data")
    parser.add_argument("--frame", type=int, default=50)
    parser.add_argument("--result", type=Path, help="a finished result of that clip")
    parser.add_argument("--label", default="offline", help="name of the entry in the results")
    parser.add_argument("--min-confidence", type=float, default=0.0, help="option of the export")
    arguments = parser.parse_args()
    sequence = SHARED / "data" / arguments.clip
    with tempfile.TemporaryDirectory(prefix="stf-depth-cloud-") as temporary:
        folder = Path(temporary)
        if arguments.result is None:
            working = {"output_dir": folder / "output", "working_dir": folder / "working"}
            result = process(sequence / "color", preset="offline", **working)
        else:
            result = DepthResult(arguments.result)
        ours = exported_points(result, arguments.frame, folder / "ply", arguments.min_confidence)
    truth = read_sequence(sequence)
    found = measure(ours, sensor_points(truth, arguments.frame))
    assert truth.K is not None
    focal = {"ours": round(result.cameras[0].intrinsics.fx_px, 1), "sensor": round(float(truth.K[0, 0]), 1)}
    entry = {"clip": arguments.clip, "frame": arguments.frame, "focal_px": focal, **found}
    content = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    content[arguments.label] = {"min_confidence": arguments.min_confidence, **entry}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps(entry, indent=1))


if __name__ == "__main__":
    main()
