"""The page: a thin layer of gradio over the queue, the sessions and the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from stf_depth.app.jobs import JobQueue, Progress, Ticket
from stf_depth.app.limits import AppLimits
from stf_depth.app.sessions import Session, Sessions
from stf_depth.app.work import (
    accept_upload,
    demo_video,
    export_file,
    picture_pair,
    process_upload,
    public_message,
)
from stf_depth.config import PRESETS
from stf_depth.errors import InputError, StfDepthError
from stf_depth.executors.base import Executor
from stf_depth.export import FORMATS
from stf_depth.report.words import meaning, without_folders
from stf_depth.result import DepthResult
from stf_depth.video.discover import VIDEO_SUFFIXES

__all__ = ["CSS", "Handlers", "lay_out"]

CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
.status { min-height: 3.2rem; }
.status progress { width: 100%; height: .6rem; appearance: none; border: 0; border-radius: .3rem; overflow: hidden;
  background: var(--border-color-primary); }
.status progress::-webkit-progress-bar { background: var(--border-color-primary); }
.status progress::-webkit-progress-value { background: var(--color-accent); }
.status progress::-moz-progress-bar { background: var(--color-accent); }
.status .failed { color: #b3261e; font-weight: 600; }
.status .fallback { color: #9a5b00; font-weight: 600; }
"""
_INTRO = """# STF-Depth
Depth of a video, steady over time and sharp at borders. Everything stays on this server; uploads and results go
when you leave, or {hours:.0f} hours after your last visit at the latest.
"""
_PRESETS = {
    "offline": "offline: from camera motion, no network needed",
    "fast": "fast: small networks",
    "seed": "seed: MiDaS DPT-Large, DeepLabV3, OneFormer",
    "best": "best: strongest permissive networks",
}
_POLL_SECONDS = 0.25


_NO_FILE: dict[str, Any] = gr.update(value=None, visible=False)


@dataclass(frozen=True)
class Handlers:
    """What happens when something on the page is pressed; independent of how the page is laid out.

    executor: where videos are processed, in this process when None.
    """

    jobs: JobQueue
    sessions: Sessions
    limits: AppLimits
    executor: Executor | None = None

    def run(self, upload: str | None, preset: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Process a video; yields (status, can run, can cancel, result is shown, frame slider, pictures, video)."""
        session = self._session(request)
        session.result = None
        yield self._shown("<p>Checking the file …</p>", running=True)
        try:
            video = self._accepted(session, upload)
            if preset not in PRESETS:
                raise InputError("unknown preset", got=preset)
            work = _processing(session, video, preset, self.limits, self.executor)
            ticket = self.jobs.submit(session.key, work)
        except StfDepthError as error:
            yield self._shown(_failure(error))
            return
        try:
            for status in self._watched(ticket):
                yield self._shown(status, running=True)
            session.result = ticket.result()
            yield self._finished(session.result)
        except Exception as error:
            yield self._shown(_failure(error))
        finally:
            ticket.cancel()

    def cancel(self, request: gr.Request) -> None:
        """Stop the visitor's job."""
        ticket = self.jobs.of(self._session(request).key)
        if ticket is not None:
            ticket.cancel()

    def demo(self, request: gr.Request) -> str:
        """Put a synthetic clip where the upload would be."""
        return str(demo_video(self._session(request), self.limits.demo_frames))

    def compare(self, index: float, request: gr.Request) -> Any:
        """Before and after of a frame."""
        result = self._session(request).result
        if result is None:
            return gr.skip()
        return _guarded(lambda: picture_pair(result, int(index)))

    def export(self, name: str, request: gr.Request) -> Iterator[tuple[Any, Any]]:
        """Export the shown result; yields (status, file)."""
        session = self._session(request)
        if name not in FORMATS:
            yield _failure(InputError("unknown format", got=name)), _NO_FILE
            return
        yield f"<p>Writing {escape(name)} …</p>", _NO_FILE
        try:
            ticket = self.jobs.submit(session.key, lambda _: export_file(session, name))
            for _ in self._watched(ticket):
                pass
            path = ticket.result()
            yield (
                f"<p>{escape(path.name)}, {path.stat().st_size / 1e6:.1f} MB</p>",
                gr.update(value=str(path), visible=True),
            )
        except Exception as error:
            yield _failure(error), _NO_FILE

    def leave(self, request: gr.Request) -> None:
        """The visitor has closed the page."""
        if request.session_hash:
            self.sessions.forget(request.session_hash)

    def _session(self, request: gr.Request) -> Session:
        if not request.session_hash:
            raise gr.Error("This page must be opened in a browser.", print_exception=False)
        return self.sessions.of(request.session_hash)

    def _accepted(self, session: Session, upload: str | None) -> Path:
        if not upload:
            raise InputError("no video was chosen", hint="Upload one, or take the demo clip")
        return accept_upload(self.sessions, session, Path(upload), self.limits)

    def _watched(self, ticket: Ticket) -> Iterator[str]:
        while not ticket.wait(_POLL_SECONDS):
            ahead = self.jobs.ahead(ticket)
            yield _progress(Progress(ahead=ahead) if ahead else ticket.progress)

    def _shown(self, status: str, *, running: bool = False) -> tuple[Any, ...]:
        skip = gr.skip()
        run, cancel = gr.update(interactive=not running), gr.update(interactive=running)
        return status, run, cancel, gr.update(visible=False), skip, skip, skip

    def _finished(self, result: DepthResult) -> tuple[Any, ...]:
        middle = len(result) // 2
        comparison = result.folder / FORMATS["comparison"].target
        return (
            _summary(result),
            gr.update(interactive=True),
            gr.update(interactive=False),
            gr.update(visible=True),
            gr.update(maximum=max(len(result) - 1, 1), value=middle),
            picture_pair(result, middle),
            str(comparison) if comparison.is_file() else None,
        )


def _processing(
    session: Session, video: Path, preset: str, limits: AppLimits, executor: Executor | None
) -> Callable[[Any], DepthResult]:
    return lambda reporter: process_upload(session, video, preset, limits, reporter, executor)


def _guarded(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:
        raise gr.Error(public_message(error), print_exception=False) from None


def _progress(state: Progress) -> str:
    if state.ahead:
        return f"<p>Waiting: {_counted(state.ahead, 'job')} ahead of yours.</p>"
    bar = f' value="{min(state.done, state.total)}" max="{state.total}"' if state.total else ""
    frames = f" {state.done} / {state.total} frames" if state.total else ""
    return f"<p>{escape(state.stage or 'starting').capitalize()}{frames}</p><progress{bar}></progress>"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _failure(error: BaseException) -> str:
    text = public_message(error)
    return f'<p class="failed">{escape(text[:1].upper() + text[1:])}</p>'


def _summary(result: DepthResult) -> str:
    manifest = result.manifest
    parts = [f"<p><b>{escape(result.name)}</b>: {len(result)} frames, {_counted(len(result.shots), 'shot')}. "]
    parts.append(f"{escape(meaning(result.representation, result.ambiguity))}</p>")
    flicker = manifest.get("flicker_percent", {})
    if flicker.get("per_frame") is not None and flicker.get("fused") is not None:
        parts.append(f"<p>Flicker {flicker['per_frame']:.2f} % → {flicker['fused']:.2f} %.</p>")
    reasons = [shot["fallback"] for shot in manifest["shots"] if shot.get("fallback")]
    if reasons:
        parts.append(f'<p class="fallback">Fallback in {_counted(len(reasons), "shot")}: {escape(reasons[0])}</p>')
    licences = ", ".join(
        f"{without_folders(model['name'])} ({model['licence']})" for model in manifest["models"].values()
    )
    parts.append(f"<p>Models: {escape(licences)}</p>")
    return "".join(parts)


def lay_out(handlers: Handlers) -> Any:
    """The page with its events, as gradio Blocks."""
    with gr.Blocks(title="STF-Depth", analytics_enabled=False) as page:
        gr.Markdown(_INTRO.format(hours=handlers.limits.session_seconds / 3600))
        with gr.Row():
            with gr.Column(scale=3):
                upload = gr.File(label="Video", file_types=sorted(VIDEO_SUFFIXES), elem_id="upload", height=150)
                demo = gr.Button("Take the demo clip", size="sm", elem_id="demo")
            with gr.Column(scale=2):
                choices = [(text, name) for name, text in _PRESETS.items()]
                preset = gr.Radio(choices, value="fast", label="Preset", elem_id="preset")
        with gr.Row():
            run = gr.Button("Run", variant="primary", elem_id="run")
            cancel = gr.Button("Cancel", interactive=False, elem_id="cancel")
        status = gr.HTML("<p>Ready.</p>", elem_id="status", elem_classes="status")
        with gr.Column(visible=False, elem_id="result") as shown:
            pictures = gr.ImageSlider(label="Per frame | fused", type="numpy", interactive=False, elem_id="pictures")
            frame = gr.Slider(0, 1, value=0, step=1, label="Frame", elem_id="frame")
            video = gr.Video(interactive=False, show_label=False, elem_id="comparison")
            formats = [(f"{name}: {form.summary}", name) for name, form in FORMATS.items()]
            with gr.Row():
                form = gr.Dropdown(formats, value="npz", label="Download as", elem_id="format", scale=4)
                write = gr.Button("Write file", elem_id="write", scale=1)
            written = gr.HTML("", elem_id="export-status", elem_classes="status")
            download = gr.File(label="File", interactive=False, elem_id="download", height=110, visible=False)
        quiet: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "hidden"}
        outputs = [status, run, cancel, shown, frame, pictures, video]
        run.click(handlers.run, [upload, preset], outputs, **quiet)
        cancel.click(handlers.cancel, None, None, queue=False, **quiet)
        demo.click(handlers.demo, None, upload, **{**quiet, "show_progress": "minimal"})
        frame.release(handlers.compare, frame, pictures, **quiet)
        write.click(handlers.export, form, [written, download], **quiet)
        page.unload(handlers.leave)
    return page
