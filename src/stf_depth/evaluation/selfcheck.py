"""How steady and how sharp a result is, before and after fusion, without ground truth.

Flow-warp errors reward blur, so flicker stands beside the recall of mask edges. Masks must not have been seen by the
fusion: they are given as a folder, or found by colour when the fusion used none of that kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import InputNotFoundError, OutputError, SequenceError
from stf_depth.evaluation.boundary import segment_edge_recall
from stf_depth.evaluation.clips import numbered
from stf_depth.evaluation.consistency import (
    ClipRange,
    clip_range,
    flow_scale,
    opw_abs_rel_pair,
    opw_nvds_pair,
    read_disparity,
    scale_drift,
)
from stf_depth.evaluation.flow_links import FlowLink, FlowLinker, neighbour_pairs, reduced_wh
from stf_depth.evaluation.metrics import Measure
from stf_depth.evaluation.report import markdown_table, measure_to_json, terminal_table, write_json
from stf_depth.evaluation.still_scene import Placement, StillScene
from stf_depth.geometry.arrays import as_float32
from stf_depth.result import DepthResult
from stf_depth.types import Ambiguity, BoolArray, Float32Array, Frames, Int32Array, Representation, Shot, Uint8Array

__all__ = ["SelfScores", "evaluate_self"]

CONFIDENCE_EDGES = (0.25, 0.5, 0.75)
LONG_SIDE_PX = 320
MASK_FRAMES = 24
CONFIDENCE_FRAMES = 48
FARTHEST = 1e-3  # disparity of what counts as the far end of a clip that shows infinity, of its near end's


@dataclass(frozen=True)
class SelfScores:
    """Measures without ground truth; ``rows`` holds ``per frame`` (when its depth is still cached) and ``fused``.

    seconds: (P,) time of each pair. flicker_percent, scale: row -> (P,), NaN where unknown. confidence_shares: share
    of pixels by confidence. notes: what could not be measured and why.
    """

    name: str
    measures: Mapping[str, Mapping[str, Measure]]
    seconds: Sequence[float]
    flicker_percent: Mapping[str, Sequence[float]]
    scale: Mapping[str, Sequence[float]]
    confidence_shares: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def value(self, metric: str, row: str = "fused") -> float:
        """One number."""
        return self.measures[row][metric].value

    def as_json(self) -> dict[str, Any]:
        """Plain values; unknown ones are null."""

        def known(values: Sequence[float]) -> list[float | None]:
            return [None if math.isnan(value) else value for value in values]

        return {
            "name": self.name,
            "measures": {
                row: {metric: measure_to_json(measure) for metric, measure in measures.items()}
                for row, measures in self.measures.items()
            },
            "seconds": list(self.seconds),
            "flicker_percent": {row: known(values) for row, values in self.flicker_percent.items()},
            "scale": {row: known(values) for row, values in self.scale.items()},
            "confidence_shares": dict(self.confidence_shares),
            "notes": list(self.notes),
        }

    def write_json(self, path: Path) -> None:
        """Write ``as_json`` to a file; raises OutputError."""
        write_json(self.as_json(), path)

    def rows(self) -> list[tuple[list[str], Mapping[str, Measure]]]:
        """One row before fusion, one after."""
        return [([row], measures) for row, measures in self.measures.items()]

    def markdown(self) -> str:
        """A Markdown table."""
        return markdown_table(["Depth"], self.rows())

    def text(self) -> str:
        """A table for terminals, the shares of pixels by confidence, and notes."""
        shares = ", ".join(f"{name}: {share:.1%}" for name, share in self.confidence_shares.items())
        return terminal_table(self.name, ["Depth"], self.rows(), [f"Pixels by confidence: {shares}", *self.notes])

    def plot(self, path: Path) -> None:
        """Draw flicker and change of scale over time into a PNG file; raises OutputError."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True)
        for row, values in self.flicker_percent.items():
            axes[0].plot(self.seconds, values, label=row)
            axes[1].plot(self.seconds, [100 * (value - 1) for value in self.scale[row]], label=row)
        axes[0].set_ylabel("flicker (%)")
        axes[0].legend(loc="upper right")
        axes[1].set_ylabel("scale change (%)")
        axes[1].set_xlabel("time (s)")
        try:
            figure.savefig(path, format="png", dpi=110)
        except OSError as error:
            raise OutputError("cannot write the plot", where=path, got=error.strerror) from error


def evaluate_self(result: Path, *, masks: Path | None = None, max_pairs: int = 200) -> SelfScores:
    """Score a result folder against itself, before and after fusion.

    flicker_percent: 100 times the mean relative flow-warp error of range-normalised disparity. opw_abs_rel: that of
    range-normalised z-depth, where there is one. still_flicker_percent: that of depth with the camera's motion taken
    out, where the camera was solved. opw_nvds: with DIS flow, so not for comparing with tables. flow_scale_drift: std /
    mean of the scale between flow-linked neighbours. mask_recall: borders of held-out masks that depth edges hit.
    masks: folder of one id image a frame, unseen by the fusion. Pairs are thinned evenly to ``max_pairs``.

    Raises InputNotFoundError and OutputError as ``DepthResult`` does, and when the source of the frames is gone.
    """
    opened = DepthResult(result)
    notes: list[str] = []
    stacks = _stacks(opened, notes)
    pairs = neighbour_pairs(len(opened), shots=opened.shots, max_pairs=max_pairs)
    picked = _evenly(len(opened), MASK_FRAMES)
    rgb = _Colour.of(opened, sorted({i for k in pairs for i in (k, k + 1)} | set(picked)))
    series = _follow(stacks, rgb, pairs, opened)
    held_out = _held_out(opened, masks, rgb, notes)
    measures = {
        row: {**series[row].measures(len(opened)), "mask_recall": _mask_recall(stack, held_out, picked)}
        for row, stack in stacks.items()
    }
    return SelfScores(
        name=opened.name,
        measures=measures,
        seconds=[float(opened.pts_seconds[k]) for k in pairs],
        flicker_percent={row: one.flicker_percent for row, one in series.items()},
        scale={row: one.scales for row, one in series.items()},
        confidence_shares=_confidence_shares(opened),
        notes=tuple(notes),
    )


def _evenly(count: int, wanted: int) -> list[int]:
    return [int(k) for k in np.unique(np.linspace(0, count - 1, min(wanted, count)).round())]


class _Kept:
    """Frames of a stored array with the last decoded chunk kept, as neighbours are read one after the other."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self._step = int(array.chunks[0])
        self._chunk: tuple[int, NDArray[Any]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._array.shape)

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def __getitem__(self, index: Any, /) -> Any:
        number, offset = divmod(int(index), self._step)
        if self._chunk is None or self._chunk[0] != number:
            self._chunk = number, np.asarray(self._array[number * self._step : (number + 1) * self._step])
        return self._chunk[1][offset]


@dataclass(frozen=True)
class _Stack:
    """Depth as something that grows towards the camera."""

    depth: Frames
    valid: Frames
    representation: Representation
    ambiguity: Ambiguity

    @property
    def shape(self) -> tuple[int, ...]:
        return self.depth.shape

    def __len__(self) -> int:
        return len(self.depth)

    def __getitem__(self, index: Any, /) -> Float32Array:
        values = np.asarray(self.depth[index], np.float32)
        if self.representation is Representation.DISPARITY:
            return values
        if self.ambiguity is Ambiguity.AFFINE:
            return -values
        return np.divide(1, values, out=np.zeros_like(values), where=values > 0)

    def at(self, frame: int, size_wh: tuple[int, int]) -> Float32Array:
        """One frame at another size, NaN where unknown."""
        return read_disparity(self, frame, size_wh, self.valid)


class _Positive:
    """Validity of triangulated disparity: positive where something was triangulated."""

    def __init__(self, disparity: Frames) -> None:
        self._disparity = disparity

    @property
    def shape(self) -> tuple[int, ...]:
        return self._disparity.shape

    def __len__(self) -> int:
        return len(self._disparity)

    def __getitem__(self, index: Any, /) -> BoolArray:
        return np.asarray(np.asarray(self._disparity[index]) > 0)


def _stacks(result: DepthResult, notes: list[str]) -> dict[str, _Stack]:
    from stf_depth.export.source import per_frame_depth, structure_maps

    before = per_frame_depth(result)
    structure = structure_maps(result) if before is None else None
    fused = _Stack(_Kept(result.depth), _Kept(result.valid), result.representation, result.ambiguity)
    if before is not None:
        meaning = before.representation, before.ambiguity
        return {"per frame": _Stack(_Kept(before.depth), _Kept(before.valid), *meaning), "fused": fused}
    if structure is not None:
        disparity = _Kept(structure.disparity)
        triangulated = _Stack(disparity, _Positive(disparity), Representation.DISPARITY, Ambiguity.SCALE)
        return {"triangulated": triangulated, "fused": fused}
    notes.append("the depth of single frames is no longer cached, so only the fused depth is measured")
    return {"fused": fused}


@dataclass(frozen=True)
class _Colour:
    """Frames at the reduced size, only those that are needed."""

    frames: Mapping[int, Uint8Array]

    @classmethod
    def of(cls, result: DepthResult, wanted: Sequence[int]) -> _Colour:
        from stf_depth.export.source import rgb_frames

        _, height, width = result.depth.shape
        needed = set(wanted)
        found = {k: rgb for k, rgb in rgb_frames(result, wh=reduced_wh(width, height, LONG_SIDE_PX)) if k in needed}
        return cls(found)

    @property
    def shape(self) -> tuple[int, ...]:
        return (max(self.frames, default=-1) + 1, *next(iter(self.frames.values())).shape)

    def __len__(self) -> int:
        return max(self.frames, default=-1) + 1

    def __getitem__(self, index: Any, /) -> Uint8Array:
        return self.frames[int(index)]


@dataclass
class _Series:
    """What is measured between neighbours of one stack."""

    stack: _Stack
    size_wh: tuple[int, int]
    limits: ClipRange | None
    scene: StillScene
    placements: Mapping[Shot, Placement]
    flicker: list[Measure] = field(default_factory=list)
    distance: list[Measure] = field(default_factory=list)
    still: list[Measure] = field(default_factory=list)
    nvds: list[Measure] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)

    def push(self, k: int, rgb: tuple[Uint8Array, Uint8Array], link: FlowLink) -> None:
        if self.limits is None:
            absent = Measure.without_support("constant or empty prediction")
            self.flicker.append(absent)
            self.distance.append(absent)
            self.still.append(absent)
            self.nvds.append(absent)
            self.scales.append(math.nan)
            return
        raw = self.stack.at(k, self.size_wh), self.stack.at(k + 1, self.size_wh)
        first, second = (self.limits.normalise(values) for values in raw)
        self.still.append(self.scene.measure(k, raw, self.placements, link))
        self.flicker.append(opw_abs_rel_pair(first, second, link))
        self.distance.append(self._distance(raw, self.limits, link))
        self.nvds.append(opw_nvds_pair(raw[0], raw[1], rgb[0], rgb[1], link))
        self.scales.append(flow_scale(first, second, link))

    def _distance(self, raw: tuple[Float32Array, Float32Array], limits: ClipRange, link: FlowLink) -> Measure:
        if self.stack.ambiguity is Ambiguity.AFFINE:
            return Measure.without_support("affine disparity has no z-depth")
        farthest = 1 / max(limits.low, FARTHEST * limits.high)
        between = ClipRange(1 / limits.high, farthest)
        first, second = (between.normalise(_inverse(values, 2 * farthest)) for values in raw)
        return opw_abs_rel_pair(first, second, link)

    @property
    def flicker_percent(self) -> list[float]:
        return [100 * measure.value for measure in self.flicker]

    def measures(self, frame_count: int) -> dict[str, Measure]:
        known = [scale for scale in self.scales if not math.isnan(scale)]
        # Published sums run over all pairs and are divided by the frames; thinned pairs stand for all of them.
        share = (frame_count - 1) / frame_count if frame_count > 1 else math.nan
        return {
            "flicker_percent": _mean(self.flicker, 100.0),
            "opw_abs_rel": _mean(self.distance, 1.0),
            "still_flicker_percent": _mean(self.still, 100.0),
            "opw_nvds": _mean(self.nvds, share),
            "flow_scale_drift": scale_drift(known),
        }


def _inverse(disparity: Float32Array, most: float) -> Float32Array:
    """z-depth, at most ``most``; NaN stays NaN."""
    return as_float32(1 / np.maximum(disparity, np.float32(1 / most)))


def _mean(measures: Sequence[Measure], factor: float) -> Measure:
    known = [measure.value for measure in measures if not math.isnan(measure.value)]
    if known:
        return Measure(factor * math.fsum(known) / len(known))
    return measures[0] if measures else Measure.without_support("fewer than two frames in every shot")


def _follow(
    stacks: Mapping[str, _Stack], rgb: _Colour, pairs: Sequence[int], result: DepthResult
) -> dict[str, _Series]:
    height, width = rgb.shape[1:3]
    size_wh = (width, height)
    scene = StillScene(result, size_wh)
    series = {
        row: _Series(stack, size_wh, clip_range(stack, size_wh, stack.valid), scene, scene.placements(stack))
        for row, stack in stacks.items()
    }
    for k, first, second, link in FlowLinker(long_side_px=LONG_SIDE_PX).pairs(rgb, pairs):
        for one in series.values():
            one.push(k, (first, second), link)
    return series


class _Masks:
    """Segment ids of single frames, found by colour or read from a folder."""

    def __init__(self, rgb: _Colour, files: Sequence[Path] | None) -> None:
        self._rgb, self._files = rgb, files

    def __getitem__(self, index: int) -> Int32Array:
        if self._files is not None:
            image = cv2.imread(str(self._files[index]), cv2.IMREAD_UNCHANGED)
            if image is None or image.ndim != 2:
                raise SequenceError("not an image of segment ids", where=self._files[index])
            return image.astype(np.int32)
        from stf_depth.perception.panoptic.regions import RegionOptions, segment_regions

        return segment_regions(self._rgb[index], RegionOptions())


def _held_out(result: DepthResult, masks: Path | None, rgb: _Colour, notes: list[str]) -> _Masks | None:
    if masks is not None:
        files = numbered(masks, "*.png")
        if len(files) != len(result):
            raise SequenceError("one mask for each frame", where=masks, expected=len(result), got=len(files))
        notes.append(f"masks: {masks.name}")
        return _Masks(rgb, files)
    if "regions" in str(result.manifest["config"].get("panoptic")):
        notes.append("the fusion used colour regions, so no mask is held out: give a folder of masks with --masks")
        return None
    notes.append("masks: colour regions of single frames, unseen by the fusion; compare rows, not clips")
    return _Masks(rgb, None)


def _mask_recall(stack: _Stack, masks: _Masks | None, picked: Sequence[int]) -> Measure:
    if masks is None:
        return Measure.without_support("no mask held out of the fusion")
    found: list[Measure] = []
    limits: ClipRange | None = None
    for k in picked:
        ids = masks[k]
        size_wh = (ids.shape[1], ids.shape[0])
        limits = limits or clip_range(stack, size_wh, stack.valid)
        if limits is None:
            return Measure.without_support("constant or empty prediction")
        found.append(segment_edge_recall(limits.normalise(read_disparity(stack, k, size_wh, stack.valid)), ids))
    return _mean(found, 1.0)


def _confidence_shares(result: DepthResult) -> dict[str, float]:
    counts = np.zeros(len(CONFIDENCE_EDGES) + 1)
    frames = _Kept(result.confidence)
    for k in _evenly(len(result), CONFIDENCE_FRAMES):
        bins = np.digitize(np.asarray(frames[k]).ravel(), CONFIDENCE_EDGES)
        counts += np.bincount(bins, minlength=len(counts))
    if not counts.sum():
        raise InputNotFoundError("a result without frames", where=result.folder)
    edges = [0.0, *CONFIDENCE_EDGES, 1.0]
    names = [f"{low:.2f} to {high:.2f}" for low, high in pairwise(edges)]
    return {name: float(share) for name, share in zip(names, counts / counts.sum(), strict=True)}
