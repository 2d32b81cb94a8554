"""Depth of a stream while it comes: ``push`` frames, take what is ready, ``flush`` the rest."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.cache.files import output_errors, write_json
from stf_depth.cache.keys import digest_json
from stf_depth.cache.lock import folder_lock
from stf_depth.cache.store import StageStore
from stf_depth.config import RunConfig
from stf_depth.errors import ConfigError, ShapeError, UnreadableVideoError
from stf_depth.export import remove_exports
from stf_depth.fusion.causal import CausalFrame, CausalFuser
from stf_depth.perception.base import BackendInfo, DepthBackend, DepthFromGeometry, IndexedDepth
from stf_depth.perception.device import resolve_device
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.manifest import (
    describe_model,
    no_camera,
    package_versions,
    peak_memory_mb,
    refuse_anothers_result,
    software,
)
from stf_depth.pipeline.progress import Reporter, SilentReporter
from stf_depth.result import DEPTH_STORE, MANIFEST, PROGRESS, DepthResult
from stf_depth.types import (
    Ambiguity,
    BoolArray,
    DepthMaps,
    Float32Array,
    Float64Array,
    FrameBatch,
    Representation,
    Shot,
    Uint8Array,
)
from stf_depth.video.digest import content_digest
from stf_depth.video.discover import safe_name
from stf_depth.video.live import is_live_source, open_live
from stf_depth.video.reader import VideoReader, open_video
from stf_depth.video.resize import resize_area

__all__ = ["Latency", "LiveDepth", "LiveFrame", "result_name", "run_live"]

_CHUNK_BYTES = 16 << 20
_ARRAYS = ("depth", "valid", "confidence")
# Times of so many frames are kept: more than an hour at 25 frames a second.
_KEPT_TIMES = 100_000


@dataclass(frozen=True)
class LiveFrame:
    """Depth of one frame of the stream.

    depth: (H, W) float32, in the representation and unit of the stream; a valid 0 is infinitely far. valid: (H, W)
    bool. confidence: (H, W) float32 in [0, 1]. starts_shot: nothing before this frame was used, as at the start and
    after a cut.
    """

    index: int
    pts_seconds: float
    depth: Float32Array
    valid: BoolArray
    confidence: Float32Array
    starts_shot: bool


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the push of a frame to its depth: median and 95th percentile over ``frames`` frames."""

    p50_ms: float
    p95_ms: float
    frames: int


class LiveDepth:
    """Steady depth of a stream of frames, each given back ``lookahead`` frames after it was pushed.

    A network looks at each frame by itself; the causal filter averages it with the past along the flow. Segments and
    camera geometry need the whole shot and are not used. backends: made from the configuration when None.

    Raises ConfigError for depth from motion, which cannot be had frame by frame, and what making a network raises.

    >>> live = LiveDepth(preset("fast"))  # doctest: +SKIP
    >>> for rgb, seconds in camera:  # doctest: +SKIP
    ...     for frame in live.push(rgb[None], np.array([seconds])):
    ...         show(frame.depth)
    """

    def __init__(self, config: RunConfig, *, backends: Backends | None = None) -> None:
        self._config = config.with_values({"semantic": "none", "panoptic": "none"})
        self._backends = backends or Backends.of(self._config)
        if isinstance(self._backends.depth, DepthFromGeometry):
            hint = "Use --mode offline, or --depth with a network"
            raise ConfigError("depth from motion needs the whole shot", got=self._config.depth, hint=hint)
        self._network: DepthBackend | IndexedDepth = self._backends.depth
        self._fuser: CausalFuser | None = None
        self._pushed: dict[int, tuple[float, float]] = {}  # index -> pts, when it was pushed
        self._taken_seconds: deque[float] = deque(maxlen=_KEPT_TIMES)
        self._count = 0
        self.representation = Representation.DISPARITY
        self.ambiguity = Ambiguity.AFFINE

    @property
    def lookahead(self) -> int:
        """How many frames after its own a frame of depth comes."""
        return self._config.causal.lookahead_frames

    @property
    def infos(self) -> dict[str, BackendInfo]:
        """The networks in use, by task."""
        infos = self._backends.infos()
        return {task: infos[task] for task in ("depth", "flow")}

    @property
    def maps(self) -> IndexedDepth | None:
        """Depth that is read by frame number instead of inferred."""
        return self._network if isinstance(self._network, IndexedDepth) else None

    @property
    def latency(self) -> Latency:
        """Of the frames that have come out so far."""
        times = np.array(self._taken_seconds) * 1000
        if not len(times):
            return Latency(0.0, 0.0, 0)
        p50, p95 = (float(value) for value in np.percentile(times, (50, 95)))
        return Latency(round(p50, 2), round(p95, 2), len(times))

    def push(
        self, rgb: Uint8Array, pts_seconds: Float64Array, *, numbers: NDArray[np.int64] | None = None
    ) -> list[LiveFrame]:
        """Take frames (N, H, W, 3) uint8 at times (N,); return the depth that is ready, in order.

        numbers: (N,) of the frames in the video that precomputed maps belong to; as they were pushed when None.

        Raises ShapeError when they do not agree, DeviceError when the device fails.
        """
        counted = np.arange(len(rgb)) + self._count
        batch = FrameBatch(rgb, np.asarray(pts_seconds, np.float64), counted if numbers is None else numbers)
        return [ready for position in range(len(batch)) for ready in self._push_one(batch, position)]

    def flush(self) -> list[LiveFrame]:
        """Return what is still held; the next frame begins anew."""
        return self._out([] if self._fuser is None else self._fuser.flush())

    def _push_one(self, batch: FrameBatch, position: int) -> list[LiveFrame]:
        picture = batch.rgb[position]
        self._pushed[self._count] = float(batch.pts_seconds[position]), time.perf_counter()
        maps = self._look(picture, int(batch.index[position]))
        self._count += 1
        if self._fuser is None:
            self.representation, self.ambiguity = maps.representation, maps.ambiguity
            device = str(resolve_device(self._config.device))
            self._fuser = CausalFuser(self._config.causal, maps.ambiguity, flow=self._backends.flow, device=device)
        near = maps.as_disparity()
        shown = self._at_output_size(picture)
        return self._out(self._fuser.push(shown, near.depth[0], near.valid[0]))

    def _look(self, picture: Uint8Array, number: int) -> DepthMaps:
        if isinstance(self._network, IndexedDepth):
            return self._network.read([number])
        return self._network.infer(picture[None])

    def _at_output_size(self, picture: Uint8Array) -> Uint8Array:
        height, width = picture.shape[:2]
        video = self._config.video
        if video.output_wh is not None:
            return resize_area(picture, video.output_wh)
        if video.output_long_side_px is None:
            return picture
        scale = video.output_long_side_px / max(width, height)
        return resize_area(picture, (max(1, round(width * scale)), max(1, round(height * scale))))

    def _out(self, frames: list[CausalFrame]) -> list[LiveFrame]:
        ready = []
        for frame in frames:
            pts, pushed = self._pushed.pop(frame.index)
            depth = frame.disparity
            if self.representation is Representation.Z_DEPTH:
                depth = np.divide(1, depth, out=np.zeros_like(depth), where=depth > 0)
            ready.append(LiveFrame(frame.index, pts, depth, frame.valid, frame.confidence, frame.is_reset))
            self._taken_seconds.append(time.perf_counter() - pushed)
        return ready


def run_live(
    source: str,
    config: RunConfig,
    output_dir: Path,
    *,
    name: str | None = None,
    reporter: Reporter | None = None,
    drop_frames: bool = True,
) -> DepthResult:
    """Depth of a camera, a stream or a video as it comes, written to a result folder while it runs.

    source: the number of a camera, a URL, or a path. The result ends with the source, after ``video.max_frames`` or
    ``video.end_seconds``, or with Ctrl-C. name: of the result's folder; that of the source when None. drop_frames: see
    ``open_live``.

    An earlier result stays until the first frame of the new one is there, and that of another source for good.

    Raises InputError, ModelError, ConfigError or OutputError.
    """
    reporter = reporter or SilentReporter()
    live = LiveDepth(config)
    name = result_name(source) if name is None else safe_name(name)
    folder = output_dir / name
    made_from = _identity(source)
    with folder_lock(folder):
        refuse_anothers_result(folder, made_from["path"], made_from.get("sha256"))
        writer = _ResultWriter(folder, source, config, live, made_from)
        reporter.stage(name, "causal", config.video.max_frames)
        with _frames(source, config, drop_frames, live) as (frames, facts), _ending_with_interrupt():
            for batch in frames:
                with _finishing_first():
                    writer.write(live.push(batch.rgb, batch.pts_seconds, numbers=batch.index))
                reporter.advance(len(batch))
        writer.write(live.flush())
        writer.finish(facts())
    latency = live.latency
    reporter.message(
        name, f"latency p50 {latency.p50_ms:.0f} ms, p95 {latency.p95_ms:.0f} ms, lookahead {live.lookahead}"
    )
    return DepthResult(folder)


def _identity(source: str) -> dict[str, str]:
    """Whole path or address of a source, and the digest of what has a content."""
    if is_live_source(source):
        return {"path": source}
    path = Path(source).resolve()
    return {"path": str(path), **({"sha256": content_digest(path)} if path.is_file() or path.is_dir() else {})}


@contextmanager
def _ending_with_interrupt() -> Iterator[None]:
    """Ctrl-C is how a stream without an end is ended."""
    try:
        yield
    except KeyboardInterrupt:
        return


@contextmanager
def _finishing_first() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, so that no frame is left half done; pressed again, it does not wait."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    pressed: list[tuple[int, FrameType | None]] = []

    def remember(number: int, frame: FrameType | None) -> None:
        pressed.append((number, frame))
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if pressed:
        usual(*pressed[0])


def result_name(source: str) -> str:
    """Name of the folder for the result of a source, which cannot lead out of its parent.

    >>> result_name("rtsp://camera.local/hall?key=1"), result_name("0"), result_name("videos/...mp4")
    ('rtsp___camera_local_hall', 'camera_0', 'video')
    """
    if not is_live_source(source):
        return safe_name(Path(source).stem)
    kept = "".join(letter if letter.isalnum() else "_" for letter in source.split("?")[0])
    return safe_name(f"camera_{kept}" if source.isdecimal() else kept)


@contextmanager
def _frames(
    source: str, config: RunConfig, drop_frames: bool, live: LiveDepth
) -> Iterator[tuple[Iterator[FrameBatch], Any]]:
    """The frames of the wanted range, numbered as in the whole source, and a function that says what went missing."""
    video = config.video
    if not is_live_source(source):
        with open_video(
            Path(source),
            start_seconds=video.start_seconds,
            end_seconds=video.end_seconds,
            max_frames=video.max_frames,
            allow_gaps=video.allow_gaps,
        ) as reader:
            counters = ("failed_frames", "damaged_frames", "corrected_times")
            yield _numbered(reader, live), lambda: {name: getattr(reader, name) for name in counters}
        return
    with open_live(source, drop_frames=drop_frames) as stream:
        yield _within(stream.frames(), config), lambda: {"dropped_frames": stream.dropped_frames}


def _numbered(reader: VideoReader, live: LiveDepth) -> Iterator[FrameBatch]:
    """Frames with their numbers in the whole source; raises ShapeError where maps belong to others."""
    maps = live.maps
    if maps is not None:
        maps.check_numbering(reader.places)
        _ = reader.first_number  # found out before the pass begins
    for batch in reader.batches(1):
        numbers = batch.index if maps is None else reader.numbers(batch)
        if maps is not None and not reader.info.is_sequence:
            maps.check_times(numbers.tolist(), batch.pts_seconds)
        yield replace(batch, index=numbers)


def _within(frames: Iterator[FrameBatch], config: RunConfig) -> Iterator[FrameBatch]:
    video = config.video
    count = 0
    for batch in frames:
        seconds = float(batch.pts_seconds[0])
        if video.end_seconds is not None and seconds >= video.end_seconds:
            return
        if seconds >= video.start_seconds:
            yield replace(batch, index=np.array([count], np.int64))
            count += 1
        if count == video.max_frames:
            return


class _ResultWriter:
    """Writes frames into a result folder as they come; it can be opened once ``finish`` has been called."""

    def __init__(
        self, folder: Path, source: str, config: RunConfig, live: LiveDepth, made_from: dict[str, str]
    ) -> None:
        self._folder, self._source, self._config, self._live = folder, source, config, live
        self._made_from = made_from
        self._key = digest_json([source, config.model_dump(mode="json"), time.time_ns()])
        self._store: StageStore | None = None
        # How many frames are stored, and those that wait: one value, so that no interrupt comes between the two.
        self._state: tuple[int, list[LiveFrame]] = (0, [])
        self._starts: list[int] = []

    def write(self, frames: list[LiveFrame]) -> None:
        """Take frames in order. Raises ShapeError when their size changes, OutputError when the disk is full."""
        for frame in frames:
            if self._store is None:
                self._store = self._open(frame.depth.shape)
            stored, waiting = self._state
            if waiting and frame.depth.shape != waiting[0].depth.shape:
                raise ShapeError("the stream changed its size", where=self._source, got=frame.depth.shape)
            position = stored + len(waiting)
            if position not in self._starts[-1:] and (frame.starts_shot or position == 0):
                self._starts.append(position)
            waiting.append(frame)
            self._write_chunks(self._store, least=self._store.chunk_frames)

    def _write_chunks(self, store: StageStore, *, least: int) -> None:
        """Store what waits as long as there are at least so many frames."""
        stored, waiting = self._state
        while len(waiting) >= least:
            chunk = waiting[: store.chunk_frames]
            # A chunk that an interrupt kept from being counted is written once more, in its place.
            store.write(stored // store.chunk_frames, _arrays(chunk))
            stored, waiting = self._state = stored + len(chunk), waiting[len(chunk) :]

    def _open(self, shape: tuple[int, ...]) -> StageStore:
        """A store for the frames, in place of an earlier result."""
        with output_errors(self._folder):
            (self._folder / MANIFEST).unlink(missing_ok=True)
            if (self._folder / DEPTH_STORE).exists():
                remove_exports(self._folder)  # they are of the depth that goes now
        height, width = shape
        chunk_frames = int(np.clip(_CHUNK_BYTES // (height * width * 4), 1, 16))
        return StageStore(
            self._folder / PROGRESS, self._key, chunk_frames=chunk_frames, data=self._folder / DEPTH_STORE
        )

    def finish(self, facts: dict[str, int]) -> None:
        """Write what is left and the manifest. Raises UnreadableVideoError where no frame came."""
        if self._store is None:
            raise UnreadableVideoError("no frame came", where=self._source)
        self._write_chunks(self._store, least=1)
        names = {"representation": self._live.representation.value, "ambiguity": self._live.ambiguity.value}
        self._store.finish(self._state[0], names)
        _, height, width = self._store.frames("depth").shape
        write_json(self._folder / MANIFEST, self._manifest(width, height, facts))

    def _manifest(self, width: int, height: int, facts: dict[str, int]) -> dict[str, Any]:
        latency = self._live.latency
        count, _ = self._state
        shots = [Shot(*pair) for pair in zip(self._starts, [*self._starts[1:], count], strict=True)]
        ambiguity = self._live.ambiguity.value
        return {
            "software": software(),
            "packages": package_versions(),
            "mode": "causal",
            "key": self._key,
            "input": {**self._made_from, "name": self._folder.name, "frames": count, "failed_frames": 0, **facts},
            "config": self._config.model_dump(mode="json"),
            "models": {task: describe_model(info) for task, info in self._live.infos.items()},
            "stages": {},
            "shots": [
                {
                    "start": shot.start,
                    "stop": shot.stop,
                    "ambiguity": ambiguity,
                    "camera": no_camera(shot, width, height),
                    "fallback": None,
                }
                for shot in shots
            ],
            "flicker_percent": {"per_frame": None, "fused": None},
            "latency_ms": {"p50": latency.p50_ms, "p95": latency.p95_ms, "lookahead_frames": self._live.lookahead},
            "peak_memory_mb": peak_memory_mb(),
            "exports": {},
        }


def _arrays(frames: list[LiveFrame]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {name: np.stack([getattr(one, name) for one in frames]) for name in _ARRAYS}
    return {**arrays, "pts_seconds": np.array([one.pts_seconds for one in frames], np.float64)}
