"""Second pass, second half: fuse every shot and store the result at output size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.cache.files import fsync_path, output_errors, read_json
from stf_depth.cache.sequential import SequentialWriter
from stf_depth.cache.store import StageStore
from stf_depth.export import remove_exports
from stf_depth.fusion.inputs import FusedChunk, ShotInputs
from stf_depth.geometry.arrays import as_float32
from stf_depth.pipeline.background import WAITING_CHUNKS, Background
from stf_depth.pipeline.observations import Observations
from stf_depth.pipeline.perceive import Perceived
from stf_depth.pipeline.plan import PROGRESS, VideoPlan
from stf_depth.pipeline.progress import Reporter
from stf_depth.types import Ambiguity, BoolArray, Float32Array, Representation
from stf_depth.video.prefetch import prefetched
from stf_depth.video.reader import VideoReader
from stf_depth.video.resize import resize_area

__all__ = ["fuse_video", "shot_ambiguities", "unfused"]

# Decoded size of one chunk of the result, in bytes: the unit of resuming and of random access.
_CHUNK_BYTES = 16 << 20


def fuse_video(
    plan: VideoPlan,
    name: str,
    perceived: Perceived,
    seen: Observations,
    open_reader: Callable[[], VideoReader],
    reporter: Reporter,
) -> StageStore:
    """Fuse shot by shot into ``depth.zarr``, continuing at the first chunk that is missing."""
    width, height = plan.output_wh(perceived.size_wh)
    chunk_frames = int(np.clip(_CHUNK_BYTES // (width * height * 4), 1, 16))
    manifest = read_json(plan.folders.manifest)
    if not isinstance(manifest, dict) or manifest.get("key") != plan.keys["fusion"]:
        _withdraw(plan)
    _drop_exports_of_other_depth(plan, name, reporter)
    store = StageStore(
        plan.folders.output / PROGRESS, plan.keys["fusion"], chunk_frames=chunk_frames, data=plan.folders.depth_store
    )
    if store.is_complete:
        return store
    _withdraw(plan)
    reporter.stage(name, "fusion", perceived.frame_count)
    with ExitStack() as stack:
        background = stack.enter_context(Background(WAITING_CHUNKS))
        writer = SequentialWriter(store, perceived.frame_count, background.submit)
        reporter.advance(writer.position)
        guided = plan.config.fusion.mode != "none"
        enlarge = _Enlarger(
            seen, (width, height), open_reader, writer.position, stack, guided=guided, device=plan.config.device
        )
        for number, shot in enumerate(perceived.shots):
            for chunk in _fused_from(plan, seen.of_shot(number, shot), max(writer.position - shot.start, 0)):
                first = shot.start + chunk.start
                arrays = enlarge(chunk)
                arrays["depth"] = _in_representation(arrays["depth"], seen.representation)
                times = perceived.pts_seconds[first : first + len(chunk.disparity)]
                writer.append({**arrays, "pts_seconds": times}, extra=[number, chunk.ambiguity.value])
                reporter.advance(len(times))
    store.finish(perceived.frame_count, _attributes(seen.representation, _weakest(shot_ambiguities(store).values())))
    return store


def _withdraw(plan: VideoPlan) -> None:
    """Declare the result unfinished before its depth is touched: a run that is cut short must not look whole."""
    with output_errors(plan.folders.output):
        plan.folders.manifest.unlink(missing_ok=True)
        fsync_path(plan.folders.output)


def _drop_exports_of_other_depth(plan: VideoPlan, name: str, reporter: Reporter) -> None:
    """Exports stay as long as the depth that they were made from."""
    identity = read_json(plan.folders.output / PROGRESS / "identity.json")
    if isinstance(identity, dict) and identity.get("key") == plan.keys["fusion"]:
        return
    if not plan.folders.depth_store.exists():
        return  # what lies here was not exported from a result of ours
    with output_errors(plan.folders.output):
        removed = remove_exports(plan.folders.output)
    if removed:
        reporter.message(name, f"the depth is made anew; removed what was exported from the old: {', '.join(removed)}")


def shot_ambiguities(store: StageStore) -> dict[int, Ambiguity]:
    """Shot number -> ambiguity of its fused depth, from a finished result."""
    return {number: Ambiguity(value) for chunk in store.chunks() for number, value in store.extra(chunk)}


def _weakest(ambiguities: Iterable[Ambiguity]) -> Ambiguity:
    order = (Ambiguity.METRIC, Ambiguity.SCALE, Ambiguity.AFFINE)
    return max(ambiguities, key=order.index)


def _fused_from(plan: VideoPlan, inputs: ShotInputs, first: int) -> Iterator[FusedChunk]:
    """Fused frames of a shot from frame ``first`` on; nothing where the shot is finished."""
    if first >= len(inputs):
        return
    yield from unfused(inputs, first) if plan.config.fusion.mode == "none" else _fuse(plan, inputs, first)


def _fuse(plan: VideoPlan, inputs: ShotInputs, first: int) -> Iterator[FusedChunk]:
    # Loaded here, so that a result that is there already opens without torch.
    from stf_depth.fusion.shot import fuse_shot
    from stf_depth.perception.device import resolve_device

    device = resolve_device(plan.config.device)
    return fuse_shot(inputs, plan.config, flow=plan.backends.flow, device=str(device), start=first)


def unfused(inputs: ShotInputs, first: int = 0) -> Iterator[FusedChunk]:
    """The per-frame disparity as it is, frame by frame from ``first`` on, at the network's own size."""
    for index in range(first, len(inputs)):
        valid = np.asarray(inputs.valid[index])[None]
        disparity = np.asarray(inputs.disparity[index], np.float32)[None]
        yield FusedChunk(index, disparity, valid, valid * np.float32(inputs.trust), inputs.ambiguity)


def _in_representation(disparity: Float32Array, representation: Representation) -> Float32Array:
    if representation is Representation.DISPARITY:
        return disparity
    return np.divide(1, disparity, out=np.zeros_like(disparity), where=disparity > 0)


def _attributes(representation: Representation, ambiguity: Ambiguity) -> dict[str, str]:
    metric_unit = {Representation.DISPARITY: "1/m", Representation.Z_DEPTH: "m"}[representation]
    unit = metric_unit if ambiguity is Ambiguity.METRIC else "unknown"
    return {"representation": representation.value, "ambiguity": ambiguity.value, "unit": unit}


class _Enlarger:
    """Brings fused chunks to the output size, guided by the source frames where those are larger."""

    def __init__(
        self,
        seen: Observations,
        size_wh: tuple[int, int],
        open_reader: Callable[[], VideoReader],
        first: int,
        stack: ExitStack,
        *,
        guided: bool,
        device: str,
    ) -> None:
        self._size_wh, self._device = size_wh, device
        self._frames: Iterator[NDArray[np.uint8]] | None = None
        if guided and size_wh != (seen.rgb.shape[2], seen.rgb.shape[1]):
            reader = stack.enter_context(open_reader())
            self._frames = prefetched(_frames_from(reader, first), 4)

    def __call__(self, chunk: FusedChunk) -> dict[str, NDArray[Any]]:
        valid = _resized(chunk.valid.view(np.uint8), self._size_wh, cv2.INTER_NEAREST_EXACT)
        return {
            "depth": self._depth(chunk),
            "valid": valid.view(np.bool_),
            "confidence": _resized(chunk.confidence, self._size_wh, cv2.INTER_LINEAR),
        }

    def _depth(self, chunk: FusedChunk) -> Float32Array:
        if self._frames is None:
            pairs = zip(chunk.disparity, chunk.valid, strict=True)
            return np.stack([_resized_where_valid(*pair, self._size_wh) for pair in pairs])
        from stf_depth.fusion.upsample import upsample_disparity
        from stf_depth.perception.device import resolve_device

        device = str(resolve_device(self._device))
        guides = [resize_area(next(self._frames), self._size_wh) for _ in chunk.disparity]
        triples = zip(chunk.disparity, chunk.valid, guides, strict=True)
        return np.stack([upsample_disparity(*triple, device=device) for triple in triples])


def _resized_where_valid(disparity: Float32Array, valid: BoolArray, size_wh: tuple[int, int]) -> Float32Array:
    """Bilinear among the valid values; 0 where none of the four around is valid."""
    if (disparity.shape[1], disparity.shape[0]) == size_wh:
        return disparity
    known = valid.astype(np.float32)
    total = cv2.resize(np.where(valid, disparity, np.float32(0)), size_wh, interpolation=cv2.INTER_LINEAR)
    weight = cv2.resize(known, size_wh, interpolation=cv2.INTER_LINEAR)
    return np.divide(total, weight, out=np.zeros_like(as_float32(total)), where=weight > 0)


def _resized(stack: NDArray[Any], size_wh: tuple[int, int], interpolation: int) -> NDArray[Any]:
    if (stack.shape[2], stack.shape[1]) == size_wh:
        return stack
    return np.stack([cv2.resize(image, size_wh, interpolation=interpolation) for image in stack])


def _frames_from(reader: VideoReader, first: int) -> Iterator[NDArray[np.uint8]]:
    return (batch.rgb[0] for batch in reader.batches(1, first=first))
