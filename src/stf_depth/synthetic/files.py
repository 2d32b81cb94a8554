"""Synthetic clips as files that the rest of the package reads like any other input."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from stf_depth.errors import OutputError
from stf_depth.synthetic.render import SyntheticClip
from stf_depth.video.writer import VideoWriter

__all__ = ["write_sequence", "write_video"]

MILLIMETRES_PER_METRE = 1000
JPEG_QUALITY = 95


def write_video(clip: SyntheticClip, path: Path) -> Path:
    """Write the colour frames with the clip's own times; returns ``path``.

    Raises OutputError when the file cannot be written.
    """
    height, width = clip.rgb.shape[1:3]
    with VideoWriter(path, wh=(width, height), frame_rate=clip.frame_rate) as writer:
        writer.write(clip.rgb, clip.pts_seconds)
    return path


def write_sequence(clip: SyntheticClip, folder: Path) -> Path:
    """Write ``color/%06d.jpg``, ``depth/%06d.png``, ``poses.txt`` and ``intrinsics.txt``; returns ``folder``.

    Depth is uint16 millimetres, 0 in the sky and beyond 65.535 m. Poses are camera to world, 16 numbers a line.

    Raises OutputError when a file cannot be written.
    """
    try:
        for name in ("color", "depth"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for index, (rgb, depth) in enumerate(zip(clip.rgb, clip.depth, strict=True)):
            _write_image(folder / "color" / f"{index:06d}.jpg", np.ascontiguousarray(rgb[..., ::-1]))
            millimetres = np.where(depth * MILLIMETRES_PER_METRE < 65535.5, depth, 0) * MILLIMETRES_PER_METRE
            _write_image(folder / "depth" / f"{index:06d}.png", np.rint(millimetres).astype(np.uint16))
        np.savetxt(folder / "poses.txt", clip.world_from_cam.reshape(-1, 16), fmt="%.9f")
        np.savetxt(folder / "intrinsics.txt", clip.intrinsics.matrix(), fmt="%.6f")
    except OSError as error:
        raise OutputError("cannot write the sequence", where=folder, got=error.strerror) from error
    return folder


def _write_image(path: Path, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8 | np.uint16]]) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    done, encoded = cv2.imencode(path.suffix, image, options)
    if not done:
        raise OutputError("cannot encode the image", where=path)
    path.write_bytes(encoded.tobytes())
