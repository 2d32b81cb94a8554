"""Folders of numbered images as videos."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from stf_depth.errors import InputNotFoundError, SequenceError
from stf_depth.ordering import files_in_order, places_in_numbering
from stf_depth.types import FrameBatch, Uint8Array, VideoInfo
from stf_depth.video.container import MAX_FRAME_PIXELS
from stf_depth.video.source import TimedImage, VideoReader

__all__ = ["DEFAULT_SEQUENCE_RATE", "IMAGE_SUFFIXES", "SequenceReader", "sequence_images"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
DEFAULT_SEQUENCE_RATE = Fraction(30)
NAMED_GAPS = 8


def sequence_images(folder: Path) -> list[Path]:
    """The images of a folder in natural order, hidden files left out."""
    return files_in_order(folder, IMAGE_SUFFIXES)


class SequenceReader(VideoReader):
    """Frames of an image-sequence folder; ``names`` holds the file names in order.

    Where numbers are missing in between, ``allow_gaps`` reads the images that are there as if they followed each other:
    frames are numbered, and times counted, without the missing ones.

    Grey, palette, 16-bit and transparent images become 8-bit RGB; transparency is composited on black and the EXIF
    orientation applied. An image that cannot be decoded is counted and left out.

    Raises InputNotFoundError where there is no folder, SequenceError for a folder without a readable image, with
    numbers missing in between (unless ``allow_gaps``), or with images of several sizes.
    """

    def __init__(
        self,
        path: Path,
        *,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
        max_frames: int | None = None,
        frame_rate: Fraction = DEFAULT_SEQUENCE_RATE,
        allow_gaps: bool = False,
    ) -> None:
        super().__init__(start_seconds=start_seconds, end_seconds=end_seconds, max_frames=max_frames)
        if not path.is_dir():
            raise InputNotFoundError("no such folder", where=path)
        self._images_in_order = sequence_images(path)
        if not self._images_in_order:
            raise SequenceError("no images in the folder", where=path, expected=", ".join(sorted(IMAGE_SUFFIXES)))
        self.names = tuple(image.name for image in self._images_in_order)
        self.gaps = _gaps(self.names)
        self.places = places_in_numbering([image.stem for image in self._images_in_order])
        if self.gaps and not allow_gaps:
            hint = "Complete the folder, or go on without them: --set video.allow_gaps=true"
            raise SequenceError("images are missing in the sequence", where=path, got=self.gaps, hint=hint)
        self._info = self._described(path, frame_rate, _common_size(path, self._images_in_order))

    def _described(self, path: Path, frame_rate: Fraction, wh: tuple[int, int]) -> VideoInfo:
        count = len(self.names)
        return VideoInfo(
            path=path,
            width_px=wh[0],
            height_px=wh[1],
            frame_rate=frame_rate,
            frame_count_from_header=count,
            duration_seconds_from_header=float(count / frame_rate),
            codec=self._images_in_order[0].suffix.lower().removeprefix("."),
            pixel_format="rgb24",
            is_sequence=True,
        )

    @property
    def info(self) -> VideoInfo:
        """Size, rate and count; the codec is the file type of the first image."""
        return self._info

    @property
    def first_number(self) -> int:
        """Number of the first image of the range."""
        return max(0, math.ceil((self._start_seconds - 1e-6) * self._info.frame_rate))

    def numbers(self, batch: FrameBatch) -> NDArray[np.int64]:
        """(N,) numbers of images in the folder, those that cannot be decoded included: so are they counted in time."""
        return np.rint(batch.pts_seconds * float(self._info.frame_rate)).astype(np.int64)

    def _images(self, skip: int) -> Generator[TimedImage]:
        # Those to be skipped are read too: only then is it known which of them cannot be.
        yield from islice(self._readable(), skip, None)

    def _readable(self) -> Iterator[TimedImage]:
        for index, path in enumerate(self._images_in_order):
            seconds = float(index / self._info.frame_rate)
            if self._end_seconds is not None and seconds >= self._end_seconds - 1e-6:
                return
            if seconds < self._start_seconds - 1e-6:
                continue
            try:
                rgb = read_image(path)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                # Pillow raises each of these for damaged data of one or another file type.
                self.failed_frames += 1
                continue
            yield rgb, seconds


def read_image(path: Path) -> Uint8Array:
    """(H, W, 3) uint8 RGB of an image file, upright.

    Raises OSError, ValueError or SyntaxError for damaged files, as Pillow does.
    """
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I") or upright.mode == "F":
            return _deep_grey(np.asarray(upright))
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            rgba = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
        return np.asarray(upright.convert("RGB"), np.uint8).copy()


def _deep_grey(values: NDArray[Any]) -> Uint8Array:
    """8-bit RGB of 16-bit grey, or of floating point grey between 0 and 1."""
    full_scale = 1.0 if values.dtype.kind == "f" else 65535.0
    grey = np.rint(np.clip(np.nan_to_num(values.astype(np.float64)) / full_scale, 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _gaps(names: tuple[str, ...]) -> str:
    """The first numbers that names leave out which share everything but their last number; empty for none."""
    parsed = [re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", name) for name in names]
    matches = [match for match in parsed if match is not None]
    if len(matches) < len(names) or len({match[1] for match in matches}) > 1:
        return ""
    numbers = [int(match[2]) for match in matches]
    missing: list[int] = []
    for before, after in pairwise(numbers):
        missing += range(before + 1, min(after, before + 2 + NAMED_GAPS))
    named = ", ".join(str(number) for number in missing[:NAMED_GAPS]) + (" ..." if len(missing) > NAMED_GAPS else "")
    return f"no {named}" if missing else ""


def _common_size(folder: Path, images: list[Path]) -> tuple[int, int]:
    """Upright size (width, height) that all readable images share, from their headers."""
    first: tuple[Path, tuple[int, int]] | None = None
    for path in images:
        size = _upright_size(path)
        if size is None:
            continue
        if size[0] * size[1] > MAX_FRAME_PIXELS:
            limit = f"at most {MAX_FRAME_PIXELS} pixels"
            raise SequenceError("the image is too large", where=path, expected=limit, got=f"{size[0]}x{size[1]}")
        first = first or (path, size)
        if size != first[1]:
            raise SequenceError(
                "images of several sizes", where=folder, expected="{}x{} as in {}".format(*first[1], first[0].name),
                got=f"{size[0]}x{size[1]} in {path.name}",
            )  # fmt: skip
    if first is None:
        raise SequenceError("no readable image in the folder", where=folder)
    return first[1]


def _animated(path: Path) -> SequenceError:
    hint = f"Split it into images, for example: magick {path.name} frame_%06d.png"
    return SequenceError("an animated WebP image is not read as a video", where=path, hint=hint)


def _upright_size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            if image.format == "WEBP" and getattr(image, "is_animated", False):
                raise _animated(path)
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            width, height = image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return (height, width) if turned else (width, height)
