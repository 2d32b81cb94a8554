"""The nodes: run, open, picture, export. Images are ComfyUI's, (N, H, W, 3) float tensors in [0, 1]."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import stf_depth
from stf_depth.config import PRESETS
from stf_depth.errors import ConfigError, InputNotFoundError
from stf_depth.export import FORMATS, export_result
from stf_depth.result import DepthResult
from stf_depth.video.digest import content_digest
from stf_depth.visualization import COLORMAPS, colorize, shot_range

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

CATEGORY = "STF-Depth"
RESULT = "STF_DEPTH"


def _work_folder() -> Path:
    """ComfyUI's folder for temporary files, the system's outside ComfyUI."""
    try:
        import folder_paths
    except ImportError:
        return Path(tempfile.gettempdir()) / "stf-depth-comfyui"
    return Path(folder_paths.get_temp_directory()) / "stf-depth"


def _mark(*parts: bytes) -> str:
    """A name for contents."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


class RunOnImages:
    """Depth of a batch of images that are the frames of one video."""

    CATEGORY = CATEGORY
    FUNCTION = "run"
    RETURN_TYPES = (RESULT,)
    RETURN_NAMES = ("depth",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - the name is ComfyUI's
        return {
            "required": {"images": ("IMAGE",), "preset": (list(PRESETS), {"default": "fast"})},
            "optional": {"depth": ("STRING", {"default": ""}), "commercial": ("BOOLEAN", {"default": False})},
        }

    def run(self, images: torch.Tensor, preset: str, depth: str = "", commercial: bool = False) -> tuple[DepthResult]:
        frames = (images.cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        # Named by content: the same images are not inferred again.
        source = _work_folder() / _mark(str(frames.shape).encode(), frames.tobytes())
        source.mkdir(parents=True, exist_ok=True)
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(source / f"{index:06d}.png", compress_level=1)
        return (_process(source, preset, depth, commercial),)


class RunOnVideo:
    """Depth of a video file or a folder of images."""

    CATEGORY = CATEGORY
    FUNCTION = "run"
    RETURN_TYPES = (RESULT,)
    RETURN_NAMES = ("depth",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {"path": ("STRING", {"default": ""}), "preset": (list(PRESETS), {"default": "fast"})},
            "optional": {"depth": ("STRING", {"default": ""}), "commercial": ("BOOLEAN", {"default": False})},
        }

    def run(self, path: str, preset: str, depth: str = "", commercial: bool = False) -> tuple[DepthResult]:
        if not path.strip():
            raise InputNotFoundError("no path to a video was given", hint="Name a video file or a folder of its images")
        return (_process(Path(path), preset, depth, commercial),)


def _process(source: Path, preset: str, depth: str, commercial: bool) -> DepthResult:
    """A folder for each video and each way to process it: a result that a workflow holds is not replaced by another."""
    folder = _work_folder()
    overrides: dict[str, Any] = {"depth": depth} if depth else {}
    video = content_digest(source).encode()
    return stf_depth.process(
        source,
        preset=preset,
        output_dir=folder / "output" / _mark(video, preset.encode(), depth.encode(), str(commercial).encode()),
        working_dir=folder / "working" / _mark(video),
        commercial=commercial,
        **overrides,
    )


class OpenResult:
    """A result folder made earlier, by any run."""

    CATEGORY = CATEGORY
    FUNCTION = "open"
    RETURN_TYPES = (RESULT,)
    RETURN_NAMES = ("depth",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"folder": ("STRING", {"default": ""})}}

    def open(self, folder: str) -> tuple[DepthResult]:
        return (stf_depth.open_result(folder),)


class DepthImages:
    """Depth as images, near bright, with one range a shot, and the mask of known pixels; ready for ControlNet."""

    CATEGORY = CATEGORY
    FUNCTION = "images"
    RETURN_TYPES = ("IMAGE", "MASK", "STRING")
    RETURN_NAMES = ("images", "valid", "meaning")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {
                "depth": (RESULT,),
                "colormap": (list(COLORMAPS), {"default": "gray"}),
                "start": ("INT", {"default": 0, "min": 0}),
                "count": ("INT", {"default": 0, "min": 0}),
            }
        }

    def images(
        self, depth: DepthResult, colormap: str = "gray", start: int = 0, count: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, str]:
        """count 0 means all frames from ``start`` on. Raises ConfigError where ``start`` is behind the last frame."""
        if not 0 <= start < len(depth):
            raise ConfigError("no such frame to start at", expected=f"0 to {len(depth) - 1}", got=start)
        stop = min(len(depth), start + count) if count else len(depth)
        pictures = []
        for shot in depth.shots:
            shown = None
            for index in range(max(start, shot.start), min(stop, shot.stop)):
                shown = shown or shot_range(depth.depth, depth.valid, shot, depth.representation, depth.ambiguity)
                nearness = shown.nearness(np.asarray(depth.depth[index]))
                # Grey keeps its full precision: no rounding to 256 steps.
                grey = np.repeat(nearness[..., None], 3, axis=-1)
                valid = np.asarray(depth.valid[index])
                pictures.append(grey * valid[..., None] if colormap == "gray" else _colours(nearness, valid, colormap))
        valid = torch.from_numpy(np.asarray(depth.valid[start:stop], np.float32))
        meaning = f"{depth.representation.value}, {depth.ambiguity.value}"
        return torch.from_numpy(np.stack(pictures).astype(np.float32)), valid, meaning


def _colours(nearness: np.ndarray, valid: np.ndarray, colormap: str) -> np.ndarray:
    return colorize(nearness, valid, colormap).astype(np.float32) / 255


class ExportResult:
    """Write a result in another format; returns the files, one a line."""

    CATEGORY = CATEGORY
    FUNCTION = "export"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("files",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {"depth": (RESULT,), "format": (list(FORMATS), {"default": "png16"})},
            "optional": {"folder": ("STRING", {"default": ""})},
        }

    def export(self, depth: DepthResult, format: str, folder: str = "") -> tuple[str]:
        files = export_result(depth, [format], Path(folder) if folder else None)[format]
        return ("\n".join(str(path) for path in files),)


NODE_CLASS_MAPPINGS = {
    "STFDepthRunOnImages": RunOnImages,
    "STFDepthRunOnVideo": RunOnVideo,
    "STFDepthOpenResult": OpenResult,
    "STFDepthImages": DepthImages,
    "STFDepthExport": ExportResult,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "STFDepthRunOnImages": "Video Depth from Images",
    "STFDepthRunOnVideo": "Video Depth from File",
    "STFDepthOpenResult": "Open Depth Result",
    "STFDepthImages": "Depth to Images",
    "STFDepthExport": "Export Depth",
}
