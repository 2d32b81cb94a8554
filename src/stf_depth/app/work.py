"""What the page does with a video: check it, process it, show it, export it."""

from __future__ import annotations

import logging
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np

from stf_depth.app.jobs import JobCancelledError
from stf_depth.app.limits import AppLimits
from stf_depth.app.sessions import Session, Sessions
from stf_depth.errors import InputError, StfDepthError
from stf_depth.executors.base import Executor
from stf_depth.export import FORMATS, export_result
from stf_depth.pipeline.process import Delivery
from stf_depth.pipeline.progress import Reporter
from stf_depth.report.pictures import ShownDepth, fit_wh
from stf_depth.report.sources import open_sources
from stf_depth.result import DepthResult
from stf_depth.types import Uint8Array
from stf_depth.video.discover import VIDEO_SUFFIXES, safe_name, unique_name
from stf_depth.video.reader import open_video

__all__ = ["accept_upload", "demo_video", "export_file", "picture_pair", "process_upload", "public_message"]

_LOG = logging.getLogger(__name__)
_SHOWN_LONG_SIDE_PX = 960
_COLORMAP = "inferno"
_PATH = re.compile(r"(?:/[^\s/:;,'\"()]+){2,}")


def accept_upload(sessions: Sessions, session: Session, upload: Path, limits: AppLimits) -> Path:
    """Copy an uploaded video into the visitor's folder after checking place, type, size and that it opens.

    Raises InputError. A link, or a file from anywhere but the private folder, is refused.
    """
    if upload.is_symlink() or not upload.is_file() or not sessions.holds(upload):
        raise InputError("that is not an uploaded file")
    suffix = upload.suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        known = " ".join(sorted(VIDEO_SUFFIXES))
        raise InputError("this type of file is not accepted", expected=f"a video: {known}", got=suffix or "no suffix")
    if upload.stat().st_size > limits.upload_mb * 1_000_000:
        raise InputError("the file is too large", expected=f"at most {limits.upload_mb} MB")
    target = _input_path(session, upload.stem, suffix)
    if upload != target:
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(upload, target)
        session.uploaded.add(upload)
    _check_frames(target, limits)
    return target


def _input_path(session: Session, stem: str, suffix: str) -> Path:
    """Where an upload goes: a result is named by the stem, which those of other types may have already."""
    folder = session.folder / "input"
    others = [path for path in folder.iterdir() if path.suffix != suffix] if folder.is_dir() else []
    name = safe_name(stem)
    taken = {path.stem.casefold() for path in others}
    return folder / (unique_name(name, [f"{name}_{suffix.removeprefix('.')}"], taken) + suffix)


def _check_frames(video: Path, limits: AppLimits) -> None:
    with open_video(video) as reader:
        info = reader.info
        if info.width_px * info.height_px > limits.pixels:
            got = f"{info.width_px}x{info.height_px}"
            raise InputError(
                "the frames are too large", expected=f"at most {limits.pixels / 1e6:.1f} megapixels", got=got
            )


def process_upload(
    session: Session, video: Path, preset: str, limits: AppLimits, reporter: Reporter, executor: Executor | None = None
) -> DepthResult:
    """Fused depth of an accepted video; raises StfDepthError, JobCancelledError when cancelled."""
    from stf_depth.api import configure, jobs_for, process_many

    config = configure(preset, {"video.max_frames": limits.frames})
    delivery = Delivery(visualize=False)
    jobs = jobs_for([video], session.folder / "output", session.folder / "working", delivery)
    (done,) = process_many(jobs, config, executor=executor, reporter=reporter)
    if done.outcome is None:
        raise done.error or StfDepthError("nothing was processed")
    return done.outcome.result


def demo_video(session: Session, frames: int) -> Path:
    """A synthetic clip in the visitor's folder, for those without one at hand."""
    from stf_depth.synthetic import demo_clip, write_video

    target = session.folder / "input" / "demo.mp4"
    if not target.is_file():
        target.parent.mkdir(exist_ok=True)
        write_video(demo_clip(frames), target)
    return target


def picture_pair(result: DepthResult, index: int) -> tuple[Uint8Array, Uint8Array]:
    """Before and after of one frame, (h, w, 3) uint8 of one size; before is the video where nothing else is cached."""
    sources = open_sources(result)
    index = int(np.clip(index, 0, len(result) - 1))
    wh = fit_wh(result.depth.shape, _SHOWN_LONG_SIDE_PX)
    after = ShownDepth(sources.fused, result.shots, _COLORMAP).picture(index, wh)
    if sources.before is None:
        return after, after
    return ShownDepth(sources.before, result.shots, _COLORMAP).picture(index, wh), after


def export_file(session: Session, name: str) -> Path:
    """The shown result in one format, as one file; formats of several files are zipped.

    Raises InputError without a result, and what the exporter raises.
    """
    if session.result is None:
        raise InputError("there is no result yet", hint="Run a video first")
    folder = session.folder / "exports" / session.result.name / name
    written = export_result(session.result, name, folder)[name]
    if len(written) == 1 and written[0].is_file():
        return written[0]
    target = session.folder / "exports" / f"{session.result.name}-{FORMATS[name].target}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                archive.write(path, path.relative_to(folder))
    return target


def public_message(error: BaseException) -> str:
    """What a visitor may read about an error: no stack, no folders of the server, nothing about defects.

    >>> public_message(InputError("not a video", where="/srv/secret/clip.mp4", hint="Try another file"))
    'not a video. Try another file'
    """
    if isinstance(error, JobCancelledError):
        return "Cancelled."
    if not isinstance(error, StfDepthError) or type(error) is StfDepthError:
        _LOG.error("job failed", exc_info=error)
        return "Something went wrong inside the program; the server's log has the details."
    _LOG.warning("job refused: %s", error)
    shown = StfDepthError(error.what, expected=error.expected, got=error.got, hint=error.hint)
    return _PATH.sub(lambda path: Path(path[0]).name, str(shown))
