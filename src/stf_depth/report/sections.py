"""The parts of a report, each a piece of HTML made from the result and its manifest."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from stf_depth.errors import AmbiguityError, GeometryError
from stf_depth.export.geometry import GeometryOptions, shot_geometry
from stf_depth.export.source import SegmentFrames
from stf_depth.report.markup import NOTHING, definition_list, details, number, paragraph, section, table, to
from stf_depth.report.measures import Slice, Stability
from stf_depth.report.pictures import Pictures, data_uri
from stf_depth.report.plots import Series, camera_plot, line_plot
from stf_depth.report.words import MOTION, citation, licence_note, meaning, without_folders
from stf_depth.result import DepthResult
from stf_depth.types import CameraPath, SegmentInfo, Shot
from stf_depth.visualization.panels import segment_colour

__all__ = [
    "camera_section",
    "fallback_label",
    "header",
    "models_section",
    "segments_section",
    "settings_section",
    "shots_section",
    "slices_section",
    "stability_section",
    "timings_section",
    "viewer_section",
]

_TITLES = {"before": "per frame", "fused": "fused"}
_MAX_SEGMENT_ROWS = 16
_MAX_CAMERA_SHOTS = 12
_PATH_UNIT = "units of the camera path"


def header(result: DepthResult, missing: tuple[str, ...]) -> str:
    """Name, meaning, main facts, and whatever the reader must know before looking."""
    facts = definition_list(_facts(result), "facts")
    notes = "".join(paragraph(text, "note") for text in missing)
    return (
        f'<header><p class="kicker">STF-Depth report</p><h1>{escape(result.name)}</h1>'
        f"{paragraph(meaning(result.representation, result.ambiguity), 'meaning')}"
        f"{fallback_label(result)}{_damage_label(result)}{facts}{notes}</header>"
    )


def _facts(result: DepthResult) -> list[tuple[str, str]]:
    count, height, width = result.depth.shape
    times = result.pts_seconds
    # The last frame lasts about as long as the others.
    duration = float(times[-1] - times[0]) * count / max(count - 1, 1)
    flicker = result.manifest.get("flicker_percent", {})
    facts = [
        ("Frames", str(count)),
        ("Size", f"{width} \N{MULTIPLICATION SIGN} {height}"),
        ("Duration", number(duration, 2, "s")),
    ]
    if duration > 0:
        facts.append(("Frame rate", number(count / duration, 2, "fps")))
    facts += [("Shots", str(len(result.shots))), ("Kind", f"{result.representation.value}, {result.ambiguity.value}")]
    if flicker:
        before, after = number(flicker.get("per_frame"), 2), number(flicker.get("fused"), 2, "%")
        facts.append(("Flicker", f"{before} → {after}"))
    return facts


def fallback_label(result: DepthResult) -> str:
    """A warning that names every shot whose depth is a fallback; nothing where there is none."""
    shots = [(n, shot) for n, shot in enumerate(result.manifest["shots"], 1) if shot.get("fallback")]
    if not shots:
        return ""
    rows = "".join(
        f"<li>Shot {n}, frames {to(shot['start'], shot['stop'] - 1)}: {escape(shot['fallback'])}</li>"
        for n, shot in shots
    )
    title = f"Fallback in {len(shots)} of {len(result.shots)} shots" if len(result.shots) > 1 else "Fallback"
    text = "Depth could not be computed from camera motion here; what is shown in its place is not a measurement."
    return f'<div class="fallback" role="note"><strong>{title}</strong><p>{text}</p><ul>{rows}</ul></div>'


def _damage_label(result: DepthResult) -> str:
    facts = result.manifest["input"]
    counts = {
        "frames of the input could not be decoded": facts.get("failed_frames", 0),
        "frames of the input were damaged": facts.get("damaged_frames", 0),
        "times of the input were corrected": facts.get("corrected_times", 0),
        **{f"frames had no usable {task} map": count for task, count in facts.get("unusable_maps", {}).items()},
    }
    told = [f"{count} {what}." for what, count in counts.items() if count]
    return paragraph(" ".join(told), "note") if told else ""


def viewer_section(result: DepthResult, pictures: Pictures) -> str:
    """Two pictures with a movable border between them, and a scrubber over the clip."""
    keys = [layer.key for layer in pictures.layers]
    left = next(key for key in ("before", "rgb", "fused") if key in keys)
    first = {layer.key: layer.uris[0] for layer in pictures.layers}
    width, height = pictures.wh
    last = len(pictures.indices) - 1
    step = "every frame" if last + 1 == len(result) else f"{last + 1} of {len(result)} frames, evenly spread"
    return section(
        "viewer",
        "Before and after",
        f'<div class="screen" style="aspect-ratio:{width}/{height};max-width:calc(78vh*{width}/{height})">'
        f'<img id="left" alt="Left picture" src="{first[left]}">'
        f'<img id="right" alt="Right picture" src="{first["fused"]}">'
        '<span class="name" id="left-name"></span><span class="name" id="right-name"></span>'
        '<input type="range" id="divider" min="0" max="100" step="0.1" value="50" '
        'aria-label="Border between the pictures"><span class="line"></span></div>',
        '<div class="controls"><button type="button" id="play" aria-label="Play">▶</button>'
        f'<input type="range" id="scrubber" min="0" max="{last}" step="1" value="0" aria-label="Frame">'
        '<output id="time" for="scrubber"></output></div>',
        f'<div class="choices">{_choice("left", "Left", pictures, left)}'
        f"{_choice('right', 'Right', pictures, 'fused')}</div>",
        _timeline(result.shots, len(result)),
        paragraph(f"Shown: {step}. Each depth picture has one colour range per shot, near is bright.", "hint"),
    )


def _choice(side: str, title: str, pictures: Pictures, chosen: str) -> str:
    options = "".join(
        f'<label><input type="radio" name="{side}" value="{layer.key}"{" checked" if layer.key == chosen else ""}>'
        f"<span>{escape(layer.title)}</span></label>"
        for layer in pictures.layers
    )
    return f'<fieldset id="choose-{side}"><legend>{title}</legend>{options}</fieldset>'


def _timeline(shots: list[Shot], frame_count: int) -> str:
    if len(shots) < 2:
        return ""
    buttons = "".join(
        f'<button type="button" data-frame="{shot.start}" style="flex-grow:{len(shot)}" '
        f'title="Shot {n}: frames {to(shot.start, shot.stop - 1)}">{n if len(shot) * 25 > frame_count else ""}</button>'
        for n, shot in enumerate(shots, 1)
    )
    return f'<div class="timeline" aria-label="Shots">{buttons}</div>'


def slices_section(found: list[Slice], window: Shot, row: float) -> str:
    """Space-time slices side by side."""
    figures = "".join(
        f'<figure><img class="slice" id="slice-{one.key}" alt="{one.title}: one row over time" '
        f'src="{data_uri(one.rgb)}"><figcaption>{one.title}</figcaption></figure>'
        for one in found
    )
    chosen = ", where the depth of single frames changes most" if any(one.key == "before" for one in found) else ""
    text = (
        f"One image row over time: the row at {100 * row:.0f} % of the height{chosen}; frames {window.start} to "
        f"{window.stop - 1} from top to bottom. Flicker shows as horizontal bands, steady depth as smooth streaks."
    )
    return section("slices", "One row over time", f'<div class="slices">{figures}</div>', paragraph(text, "hint"))


def stability_section(measured: Stability | None) -> str:
    """Flicker and change of scale over time."""
    if measured is None:
        return ""
    plots = []
    for name, title, values in (
        ("flicker-plot", "Flicker between neighbour frames", measured.flicker_percent),
        ("scale-plot", "Change of scale between neighbour frames", measured.scale_percent),
    ):
        series = [Series(key, _TITLES[key], line) for key, line in values.items() if np.isfinite(line).any()]
        if series:
            plots.append(line_plot(name, title, "%", measured.seconds, series))
    text = (
        f"Measured on {len(measured.pairs)} pairs of neighbour frames. Flicker: mean relative change of disparity "
        "along the optical flow, lower is steadier. Scale: the factor between two frames; a camera that moves "
        "forward or back changes it for good reason, jumps from pair to pair are drift."
    )
    return section("stability", "Stability", *plots, paragraph(text, "hint") if plots else "")


def shots_section(result: DepthResult) -> str:
    """The shot list."""
    times, rows = result.pts_seconds, []
    for n, (shot, entry, camera) in enumerate(
        zip(result.shots, result.manifest["shots"], result.cameras, strict=True), 1
    ):
        rows.append(
            [
                str(n),
                to(shot.start, shot.stop - 1),
                to(f"{times[shot.start]:.2f}", f"{times[shot.stop - 1]:.2f} s"),
                str(entry.get("ambiguity", result.ambiguity)),
                MOTION[camera.kind] + (f": {camera.reason}" if camera.reason else ""),
                "Fallback" if entry.get("fallback") else "",
            ]
        )
    return section("shots", "Shots", table(["Shot", "Frames", "Time", "Ambiguity", "Camera", ""], rows))


def camera_section(result: DepthResult) -> str:
    """Camera paths of the shots that were solved."""
    solved = [(n, camera) for n, camera in enumerate(result.cameras) if camera.is_reliable]
    parts = []
    for n, camera in solved[:_MAX_CAMERA_SHOTS]:
        facts = [
            ("Solved frames", f"{int(camera.solved.sum())} of {len(camera)}"),
            ("Focal length", number(camera.intrinsics.fx_px, 0, "px")),
            ("Reprojection error", number(camera.reprojection_error_px, 2, "px")),
            ("Median angle", number(camera.triangulation_angle_degrees, 1, "°")),
            ("Inliers", number(100 * camera.inlier_fraction, 0, "%")),
        ]
        title = f"<h3>Shot {n + 1}</h3>" if len(result.shots) > 1 else ""
        parts.append(title + camera_plot(f"camera-{n + 1}", *_path_and_unit(result, n)))
        parts.append(definition_list(facts, "facts small"))
    if not parts:
        return ""
    if len(solved) > _MAX_CAMERA_SHOTS:
        parts.append(paragraph(f"{len(solved) - _MAX_CAMERA_SHOTS} further solved shots are not drawn.", "hint"))
    text = "Seen from above, in the frame of the first solved camera: right is right, up is forward. Filled dot: start."
    return section("camera", "Camera path", *parts, paragraph(text, "hint"))


def _path_and_unit(result: DepthResult, number: int) -> tuple[CameraPath, str]:
    """A shot's camera path in metres where its depth is metric and tied to it, else in the unit of its own."""
    camera = result.cameras[number]
    try:
        geometry = shot_geometry(result, number, GeometryOptions())
    except (AmbiguityError, GeometryError):
        return camera, _PATH_UNIT
    if geometry.unit != "m" or not geometry.posed.any():
        return camera, _PATH_UNIT
    return replace(camera, world_from_cam=geometry.world_from_cam), "m"


def segments_section(segments: SegmentFrames | None, pictures: Pictures) -> str:
    """Names, roles and mean share of the picture, over the shown frames."""
    if segments is None:
        return ""
    shares: defaultdict[str, float] = defaultdict(float)
    known: dict[str, tuple[int, SegmentInfo]] = {}
    for index in pictures.indices:
        meanings = segments.table(index)
        ids, counts = np.unique(np.asarray(segments.ids[index]), return_counts=True)
        for segment_id, count in zip(ids.tolist(), counts.tolist(), strict=True):
            info = meanings.get(segment_id)
            if segment_id and info is not None:
                known.setdefault(info.name, (segment_id, info))
                shares[info.name] += count / segments.ids[index].size / len(pictures.indices)
    order = sorted(known, key=lambda name: (-shares[name], name))
    rows = [_segment_row(*known[name], shares[name]) for name in order[:_MAX_SEGMENT_ROWS]]
    if not rows:
        return ""
    rest = len(order) - len(rows)
    note = paragraph(f"{rest} smaller ones are not listed.", "hint") if rest > 0 else ""
    header = ["", "Segment", "Role in fusion", "Mean share of the picture"]
    return section("segments", f"Segments ({segments.task})", table(header, rows, raw_columns=[0]), note)


def _segment_row(segment_id: int, info: SegmentInfo, share: float) -> list[str]:
    red, green, blue = segment_colour(segment_id, info)
    swatch = f'<span class="swatch" style="background:rgb({red},{green},{blue})"></span>'
    return [swatch, info.name, info.role.name.lower(), number(100 * share, 1, "%")]


def models_section(result: DepthResult) -> str:
    """Every model with its licence."""
    rows = [
        [
            task,
            without_folders(model["name"]),
            model.get("licence") or "unknown",
            licence_note(model.get("commercial")),
            _weights(model),
            (model.get("weights_digest") or NOTHING)[:16],
        ]
        for task, model in result.manifest["models"].items()
    ]
    columns = ["Task", "Model", "Licence of the weights", "Commercial use", "Weights", "Digest"]
    return section("models", "Models and licences", table(columns, rows))


def _weights(model: dict[str, Any]) -> str:
    """Where the weights are from, where the model's name does not say it already."""
    weights = without_folders(model.get("weights") or "")
    return weights if weights and weights not in without_folders(model["name"]) else NOTHING


def timings_section(manifest: dict[str, Any], frame_count: int) -> str:
    """Seconds of each stage as bars."""
    seconds = {stage: value for stage, value in manifest.get("seconds_by_stage", {}).items() if value > 0}
    if not seconds:
        return ""
    longest = max(seconds.values())
    rows = [
        [
            stage,
            f'<span class="time-bar" style="width:{100 * value / longest:.1f}%"></span>',
            number(value, 2, "s"),
            number(1000 * value / frame_count, 1, "ms"),
        ]
        for stage, value in seconds.items()
    ]
    memory = number(manifest.get("peak_memory_mb"), 0, "MiB")
    total = f"Total {sum(seconds.values()):.1f} s; largest memory of the process {memory}."
    columns = ["Stage", "", "Time", "Per frame"]
    note = paragraph(f"{total} Stages that were read from the cache do not appear.", "hint")
    return section("timings", "Time", table(columns, rows, raw_columns=[1]), note)


def settings_section(manifest: dict[str, Any]) -> str:
    """Versions, the whole configuration, and how to cite."""
    software = manifest.get("software", {})
    rows = [("STF-Depth", software.get("version", "unknown")), ("Python", software.get("python", "unknown"))]
    rows += list(manifest.get("packages", {}).items())
    source = manifest["input"]
    origin = [("Input", source["name"]), ("SHA-256", source.get("sha256", "unknown"))]
    config = escape(json.dumps(manifest["config"], indent=1))
    text = "Please cite the software, and the papers of the networks that this result was made with."
    cite = escape(citation(software.get("version", "unknown"), manifest["models"]))
    return section(
        "settings",
        "Settings and citation",
        definition_list(origin, "facts small"),
        details("All settings", f"<pre>{config}</pre>"),
        details("Versions", definition_list(rows, "facts small")),
        paragraph(text),
        f"<pre>{cite}</pre>",
    )
