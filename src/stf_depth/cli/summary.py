"""What a run says before it starts and after it has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from stf_depth.cli.common import table_of
from stf_depth.config import RunConfig
from stf_depth.errors import InputError
from stf_depth.pipeline.progress import Reporter

if TYPE_CHECKING:
    from stf_depth.executors.base import Job, JobResult

__all__ = ["announce", "flaw_words", "flaws_of", "missing_values", "print_summary", "summary_values"]

# Rough seconds a frame on two CPU cores: what fusion and camera took on a busy machine, and networks by their size.
_SECONDS_PER_FRAME_PER_MB_CPU = 0.003
_SECONDS_PER_FRAME_FUSION_CPU = 0.7
_FLAWS = {"failed_frames": "+{} not decodable", "damaged_frames": "{} damaged", "corrected_times": "{} times corrected"}


def announce(config: RunConfig, jobs: Sequence[Job], reporter: Reporter) -> None:
    """Say what will be loaded, how large it is, and about how long a frame takes on the CPU."""
    from stf_depth.perception.registry import describe

    seconds = _SECONDS_PER_FRAME_FUSION_CPU if config.fusion.mode != "none" else 0.0
    parts = []
    for task in ("depth", "semantic", "panoptic", "flow"):
        info = describe(task, getattr(config, task))
        if info is None:
            continue
        size = f", {info.size_mb:.0f} MB" if info.size_mb else ""
        parts.append(f"{task} {info.name} ({info.licence.name}{size})")
        seconds += (info.size_mb or 0) * _SECONDS_PER_FRAME_PER_MB_CPU
    reporter.message(f"{len(jobs)} video(s)", "; ".join(parts))
    reporter.message("estimate", f"about {seconds:.1f} s a frame on two CPU cores, less on a GPU or from the cache")


def missing_values(error: InputError) -> dict[str, Any]:
    """The row of an input at which there is nothing to process."""
    return {"video": str(error.where), "status": "failed", "error": str(error)}


def summary_values(result: JobResult) -> dict[str, Any]:
    """One row of the table as plain values."""
    name = result.job.item.name
    if result.outcome is None:
        return {"video": name, "status": "failed", "error": str(result.error)}
    outcome = result.outcome
    manifest = outcome.result.manifest
    return {
        "video": name,
        "status": "reused" if outcome.reused else "done",
        "frames": outcome.frames,
        **flaws_of(manifest),
        "shots": len(manifest["shots"]),
        "fps": None if outcome.reused else round(outcome.frames / max(outcome.seconds, 1e-6), 2),
        "models": [model["name"] for model in manifest["models"].values()],
        "flicker_before": manifest["flicker_percent"]["per_frame"],
        "flicker_after": manifest["flicker_percent"]["fused"],
        "fallbacks": list(outcome.fallbacks),
        "output": result.job.output,
    }


def print_summary(results: Sequence[JobResult], config: RunConfig, console: Console) -> None:
    """The table that ends a run."""
    columns = ("video", "status", "frames", "shots", "frames/s", "flicker % before -> after", "output")
    rows = [_row(summary_values(result)) for result in results]
    console.print(table_of(f"preset {config.preset}, depth {config.depth}", columns, rows))


def _row(values: dict[str, Any]) -> list[str]:
    if values["status"] == "failed":
        return [values["video"], "failed", "", "", "", "", values["error"]]
    status = values["status"]
    if values["fallbacks"]:
        status += f", fallback: {values['fallbacks'][0]}"
    frames, flaws = str(values["frames"]), flaw_words(values)
    frames += f" ({', '.join(flaws)})" if flaws else ""
    flicker = f"{_number(values['flicker_before'])} -> {_number(values['flicker_after'])}"
    speed = "all there already" if values["fps"] is None else f"{values['fps']:.2f}"
    return [values["video"], status, frames, str(values["shots"]), speed, flicker, values["output"]]


def flaws_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What was wrong with the input of a result, counted; results of older versions do not have every count."""
    given = manifest["input"]
    counts = {name: given.get(name, 0) for name in _FLAWS}
    return {**counts, "unusable_maps": given.get("unusable_maps", {})}


def flaw_words(flaws: Mapping[str, Any]) -> list[str]:
    """The same for people; nothing where there was none.

    >>> flaw_words({"failed_frames": 3, "damaged_frames": 0, "corrected_times": 0, "unusable_maps": {"panoptic": 2}})
    ['+3 not decodable', '2 without panoptic map']
    """
    found = [words.format(flaws[name]) for name, words in _FLAWS.items() if flaws[name]]
    return found + [f"{count} without {task} map" for task, count in flaws["unusable_maps"].items()]


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
