"""Every export format of a whole clip, read back by a reader that is not ours.

    python benchmarks/round_trip.py --clip redkitchen            processes the clip first (offline preset)
    python benchmarks/round_trip.py --result RESULT              takes a finished result
    python benchmarks/round_trip.py --result RESULT --formats npz exr

Each format is written for all frames, read, compared with the result and deleted. ``error`` is the largest difference
over the clip, relative to the value for depth and in the stated unit elsewhere; ``validity`` counts the pixels that
changed between known and unknown. Writes benchmarks/results/round_trip.json.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import OpenEXR
import pycolmap
import trimesh
import zarr
from PIL import Image

from stf_depth.api import process
from stf_depth.export import export_result
from stf_depth.export.geometry import GeometryOptions, ShotGeometry, shot_geometry
from stf_depth.result import DepthResult
from stf_depth.types import Representation
from stf_depth.visualization import colorize, shot_range

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results" / "round_trip.json"
SHARED = Path(os.environ.get("STF_DEPTH_SHARED", REPOSITORY.parent / "shared"))


@dataclass
class Difference:
    """What a reader saw: the largest error, of what, and how many pixels changed between known and unknown."""

    reader: str
    error: float = 0.0
    of: str = "relative"
    validity: int = 0
    note: str = ""

    def frame(self, values: np.ndarray, known: np.ndarray, depth: np.ndarray, valid: np.ndarray) -> None:
        """Take one frame (H, W)."""
        self.validity += int(np.count_nonzero(known != valid))
        both = known & valid & np.isfinite(depth) & (depth != 0)
        if both.any():
            errors = np.abs(values[both].astype(np.float64) / depth[both] - 1)
            self.error = max(self.error, float(errors.max()))


def frame(result: DepthResult, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth and validity of a frame, as the result has them."""
    return np.asarray(result.depth[index]), np.asarray(result.valid[index])


def read_npz(result: DepthResult, files: list[Path]) -> Difference:
    """NumPy."""
    found = Difference("NumPy, allow_pickle=False")
    with np.load(files[0], allow_pickle=False) as archive:
        stack(found, result, archive["depth"], archive["valid"])
        assert np.array_equal(archive["pts_seconds"], result.pts_seconds)
        assert str(archive["ambiguity"]) == result.ambiguity.value
    return found


def read_zarr(result: DepthResult, files: list[Path]) -> Difference:
    """Zarr."""
    group: Any = zarr.open_group(files[0], mode="r")
    found = Difference("Zarr")
    stack(found, result, group["depth"], group["valid"])
    return found


def read_pkl(result: DepthResult, files: list[Path]) -> Difference:
    """The standard library."""
    content = pickle.loads(files[0].read_bytes())
    found = Difference("pickle")
    stack(found, result, content["depth"], content["valid"])
    return found


def stack(found: Difference, result: DepthResult, depth: Any, valid: Any) -> None:
    """Compare whole arrays, frame by frame."""
    assert depth.shape == tuple(result.depth.shape)
    for index in range(len(result)):
        found.frame(np.asarray(depth[index]), np.asarray(valid[index]), *frame(result, index))


def read_npy(result: DepthResult, files: list[Path]) -> Difference:
    """NumPy; NaN is unknown."""
    found = Difference("NumPy")
    for index, path in enumerate(path for path in files if path.suffix == ".npy"):
        values = np.load(path, allow_pickle=False)
        found.frame(values, ~np.isnan(values), *frame(result, index))
    return found


def read_exr(result: DepthResult, files: list[Path]) -> Difference:
    """The OpenEXR library; NaN is unknown, and A says the same."""
    found = Difference("OpenEXR")
    for index, path in enumerate(files):
        with OpenEXR.File(str(path), separate_channels=True) as file:
            z, alpha = (file.channels()[name].pixels for name in "ZA")
            assert np.array_equal(np.isnan(z), alpha == 0)
            found.frame(z, ~np.isnan(z), *frame(result, index))
    return found


def read_png16(result: DepthResult, files: list[Path]) -> Difference:
    """OpenCV for the pixels, Pillow for the text; the error is counted in steps of the mapping."""
    found = Difference("OpenCV, Pillow", of="steps of the mapping", note="full_range=true")
    for index, path in enumerate(path for path in files if path.suffix == ".png"):
        meta = json.loads(Image.open(path).text["stf-depth"])  # type: ignore[attr-defined]
        code = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert code is not None
        depth, valid = frame(result, index)
        found.validity += int(np.count_nonzero((code != meta["unknown_code"]) != valid))
        known = valid & (code != meta["unknown_code"]) & (code != meta["infinite_code"])
        values = meta["offset"] + meta["step"] * code[known].astype(np.float64)
        found.error = max(found.error, float(np.abs(values - depth[known]).max() / meta["step"]))
    return found


def decoded(path: Path, pixel_format: str) -> Any:
    """(time, array) of every frame, by PyAV's FFmpeg."""
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            yield picture.time, picture.to_ndarray(format=pixel_format)


def read_grey(result: DepthResult, files: list[Path]) -> Difference:
    """PyAV; the error is counted in codes."""
    found = Difference("PyAV (FFmpeg)", of="codes", note="full_range=true")
    meaning = json.loads(files[1].read_text(encoding="utf-8"))
    (span,) = meaning["ranges"]
    low, high, last = span["closeness_at_first"], span["closeness_at_last"], meaning["last_code"]
    count = 0
    for index, (_, code) in enumerate(decoded(files[0], "gray16le" if last == 65535 else "gray10le")):
        depth, valid = frame(result, index)
        found.validity += int(np.count_nonzero((code != meaning["unknown_code"]) != valid))
        close = depth if result.representation is Representation.DISPARITY else 1 / np.where(valid, depth, 1)
        expected = 1 + (close[valid] - low) / (high - low) * (last - 1)
        found.error = max(found.error, float(np.abs(code[valid] - expected).max()))
        count += 1
    assert count == len(result)
    return found


def read_colour(result: DepthResult, files: list[Path]) -> Difference:
    """PyAV; a lossy picture to look at: mean difference from the colour map, in 8-bit levels."""
    found = Difference("PyAV (FFmpeg)", of="8-bit levels, mean", note="lossy, to look at")
    meaning = (result.representation, result.ambiguity)
    ranges = [shot_range(result.depth, result.valid, shot, *meaning) for shot in result.shots]
    shown = [(shot, limits) for shot, limits in zip(result.shots, ranges, strict=True)]
    times, errors = [], []
    for index, (seconds, rgb) in enumerate(decoded(files[0], "rgb24")):
        depth, valid = frame(result, index)
        limits = next(limits for shot, limits in shown if shot.start <= index < shot.stop)
        errors.append(float(np.abs(rgb.astype(float) - colorize(limits.nearness(depth), valid)).mean()))
        times.append(seconds)
    timed(result, times)
    found.error = max(errors)
    return found


def read_video(result: DepthResult, files: list[Path]) -> Difference:
    """PyAV; frames and times."""
    times, brightness = [], []
    for seconds, rgb in decoded(files[0], "rgb24"):
        times.append(seconds)
        brightness.append(rgb.mean())
    assert min(brightness) > 5
    return Difference("PyAV (FFmpeg)", timed(result, times), "seconds, of the times", note="lossy, to look at")


def timed(result: DepthResult, times: list[float]) -> float:
    """The largest difference of the frames' times from the source's, which must be under a millisecond or two."""
    assert len(times) == len(result)
    worst = float(np.abs(np.array(times) - (result.pts_seconds - result.pts_seconds[0])).max())
    assert worst < 2e-3
    return worst


def read_points(result: DepthResult, files: list[Path]) -> Difference:
    """trimesh; z against the placed depth, and the pixel that the point comes from."""
    found = Difference("trimesh", note="pixels at depth edges are left out on purpose")
    geometry = shot_geometry(result, 0, GeometryOptions())
    for (_, z), path in zip(geometry.frames(result), files, strict=True):
        found.error = max(found.error, cloud_error(np.asarray(vertices(path)), z, geometry))
    return found


def read_mesh(result: DepthResult, files: list[Path]) -> Difference:
    """As the points, and every face must be a triangle of existing vertices."""
    found = Difference("trimesh", note="one vertex for 2x2 pixels; triangles over depth edges are left out on purpose")
    geometry = shot_geometry(result, 0, GeometryOptions())
    for (_, z), path in zip(geometry.frames(result), files, strict=True):
        mesh: Any = trimesh.load(path, force="mesh", process=False)
        assert mesh.faces.max() < len(mesh.vertices)
        flip = [1, -1, -1] if path.suffix == ".glb" else [1, 1, 1]
        found.error = max(found.error, cloud_error(np.asarray(mesh.vertices) * flip, z, geometry))
    return found


def vertices(path: Path) -> np.ndarray:
    """Points in camera axes: glTF's y is up and its z backward."""
    loaded: Any = trimesh.load(path)
    if path.suffix == ".ply":
        return np.asarray(loaded.vertices)
    (cloud,) = loaded.geometry.values()
    return np.asarray(cloud.vertices) * [1, -1, -1]


def cloud_error(points: np.ndarray, z: np.ndarray, geometry: ShotGeometry) -> float:
    """Largest relative error of z, having checked that every point lies on the ray of a pixel of its own."""
    camera = geometry.intrinsics
    u = points[:, 0] / points[:, 2] * camera.fx_px + camera.cx_px
    v = points[:, 1] / points[:, 2] * camera.fy_px + camera.cy_px
    column, row = np.rint(u).astype(int), np.rint(v).astype(int)
    assert max(np.abs(u - column).max(), np.abs(v - row).max()) < 0.01
    assert len(np.unique(row * camera.width_px + column)) == len(points)
    return float(np.abs(points[:, 2] / z[row, column] - 1).max())


def read_cameras(result: DepthResult, files: list[Path]) -> Difference:
    """pycolmap; largest difference of a pose's entry, and transforms.json says the same."""
    root = next(path.parent for path in files if path.name == "transforms.json")
    model = pycolmap.Reconstruction(str(root / "sparse" / "0"))
    geometry = shot_geometry(result, 0, GeometryOptions())
    found = Difference("pycolmap, json", of="entry of a pose")
    entries = json.loads((root / "transforms.json").read_text(encoding="utf-8"))["frames"]
    truth = geometry.world_from_cam[geometry.posed]
    images = sorted(model.images.values(), key=lambda image: image.image_id)
    for pose, image, entry in zip(truth, images, entries, strict=True):
        read = np.asarray(image.cam_from_world().inverse().matrix())
        opengl = np.array(entry["transform_matrix"]) @ np.diag([1.0, -1, -1, 1])
        found.error = max(found.error, float(np.abs(read - pose[:3]).max()), float(np.abs(opengl - pose).max()))
        assert (root / "images" / image.name).is_file()
    return found


def read_rrd(_result: DepthResult, files: list[Path]) -> Difference:
    """rerun's own tool; it verifies the recording and finds every stream."""
    tool = [sys.executable, "-m", "rerun", "rrd"]
    subprocess.run([*tool, "verify", str(files[0])], check=True, capture_output=True)
    text = subprocess.run([*tool, "print", "-v", str(files[0])], check=True, capture_output=True, text=True).stdout
    streams = ("/pictures/rgb", "/pictures/fused", "/world/camera/image/depth")
    assert all(stream in text for stream in streams), streams
    return Difference("rerun rrd verify, print", note="pictures are JPEG at reduced size, to look at")


READERS: dict[str, Callable[[DepthResult, list[Path]], Difference]] = {
    "npz": read_npz,
    "zarr": read_zarr,
    "npy": read_npy,
    "pkl": read_pkl,
    "png16": read_png16,
    "exr": read_exr,
    "mkv": read_grey,
    "mov": read_grey,
    "mp4": read_colour,
    "comparison": read_video,
    "sbs": read_video,
    "anaglyph": read_video,
    "ply": read_points,
    "points-glb": read_points,
    "glb": read_mesh,
    "mesh-ply": read_mesh,
    "cameras": read_cameras,
    "rrd": read_rrd,
}
OPTIONS: dict[str, dict[str, Any]] = {name: {"full_range": True} for name in ("png16", "mkv", "mov")}


def round_trip(result: DepthResult, name: str) -> dict[str, Any]:
    """Export, read, compare, delete: one row."""
    with tempfile.TemporaryDirectory(prefix=f"stf-depth-{name}-") as folder:
        began = time.perf_counter()
        files = export_result(result, name, Path(folder), **OPTIONS.get(name, {}))[name]
        written = time.perf_counter() - began
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        found = READERS[name](result, files)
    return {
        "format": name,
        "frames": len(result),
        "reader": found.reader,
        "error": float(f"{found.error:.3g}"),
        "error_of": found.of,
        "validity_changed": found.validity,
        "note": found.note,
        "megabytes": round(size / 1e6, 1),
        "seconds": round(written, 1),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default="redkitchen", help="a sequence in the folder of measuring data")
    parser.add_argument("--result", type=Path, help="a finished result instead")
    parser.add_argument("--formats", nargs="+", choices=list(READERS), default=list(READERS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stf-depth-round-trip-") as temporary:
        if arguments.result is None:
            source, folder = SHARED / "data" / arguments.clip / "color", Path(temporary)
            result = process(source, preset="offline", output_dir=folder / "output", working_dir=folder / "working")
        else:
            result = DepthResult(arguments.result)
        rows = []
        for name in arguments.formats:
            rows.append(round_trip(result, name))
            print(json.dumps(rows[-1]), flush=True)
        unknown = sum(int(np.count_nonzero(~frame(result, index)[1])) for index in range(len(result)))
        shape = [int(n) for n in result.depth.shape]
    content = {"shape": shape, "unknown_pixels": unknown, "rows": rows}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
