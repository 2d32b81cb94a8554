"""Measure depth per frame and fused, over sequences with ground truth and synthetic scenes, and rebuild the tables.

    python benchmarks/quality.py                                      every clip, every depth: per frame, fused, and
                                                                      fused without segments
    python benchmarks/quality.py --ablations                          also one row for each stage switched off
    python benchmarks/quality.py --clips redkitchen --depths meter    a part; the other rows of the file stay
    python benchmarks/quality.py --variants fused --clips street room
    python benchmarks/quality.py --ablate fusion.mode=flow,alignment.grid=false
    python benchmarks/quality.py --skip-existing                      go on after an interruption
    python benchmarks/quality.py --compare                            measure again and say whether figures differ
    python benchmarks/quality.py --frames 12 --results trial          quick, into another file; no document changes

Results go to benchmarks/results/quality.json, one row for each clip, depth and variant, after every row; a row that is
measured again replaces the old one. At the end the tables of README.md, README.ko.md and docs/fusion.md are rewritten
from the file (benchmarks/tables.py does that alone).

Clips: recorded sequences (redkitchen, holowalk) and rendered scenes. Depths: networks (meter, fastdepth; recorded
rooms only), motion (no network), degraded (true depth made unsteady and blurred: jitter of scale and shift, a
low-frequency field, blur), mild (the same, but sharp and nearly steady), and always the sensor against
itself. Sequences and networks are looked for in the folder
STF_DEPTH_SHARED, or ``shared`` beside the repository; without them only the rendered scenes are measured, and the file
says so. Figures are the same in every run; times are not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import tables
from measuring import environment
from stf_depth.api import process
from stf_depth.config import preset
from stf_depth.evaluation.clips import GroundTruthClip
from stf_depth.evaluation.evaluate import ClipScores, score_prediction
from stf_depth.evaluation.predictions import open_prediction
from stf_depth.evaluation.sequences import read_sequence
from stf_depth.synthetic import degrade, render_clip, scene, write_sequence, write_video
from stf_depth.synthetic.degrade import DegradeConfig
from stf_depth.types import Role

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
SHARED = Path(os.environ.get("STF_DEPTH_SHARED", REPOSITORY.parent / "shared"))
SEED = 0
SYNTHETIC_FRAMES = 48
SYNTHETIC_WH = (320, 180)

DEPTHS = ("meter", "fastdepth", "motion", "degraded", "mild")
# Of a network that is sharp and nearly steady: an error of two per cent, edges within a pixel.
MILD = DegradeConfig(scale=0.015, shift=0.01, field_white=0.008, field_slow=0.02, blur_sigma_px=0.8)
NETWORKS = {"meter": "meter_xxs_nyu_256x192.onnx", "fastdepth": "fastdepth_nyu_224.onnx"}
SEGMENTATION = "deeplabv3_mnv2_ade20k_512.onnx"
ABSENT = "not there (set STF_DEPTH_SHARED)"

STANDARD: dict[str, dict[str, Any]] = {
    "per frame": {"fusion.mode": "none"},
    "fused": {},
    "without segments": {"semantic": "none", "panoptic": "none"},
}
# Each switches one stage off; the options are those of the configuration.
ABLATIONS: dict[str, dict[str, Any]] = {
    "flow only": {"fusion.mode": "flow"},
    "flow only, without egomotion": {"fusion.mode": "flow", "fusion.egomotion": False},
    "without alignment": {"alignment.enabled": False},
    "without affine": {"alignment.affine": False},
    "without grid": {"alignment.grid": False},
    "without structure": {"fusion.structure": False},
    "without pose filter": {"fusion.pose_filter": False},
    "without trajectory filter": {"fusion.trajectory_filter": False},
    "without filter at full size": {"fusion.fine_filter": False},
    "without edge snapping": {"fusion.snap_boundaries": False},
    "without planes": {"fusion.planes": False},
    "without sky": {"fusion.sky": False},
    "without abstain rule": {"fusion.abstain": False},
    "without semantic": {"semantic": "none"},
    "without panoptic": {"panoptic": "none"},
}


@dataclass(frozen=True)
class Scene:
    """A clip to run on: what is processed, what it is scored against, and depth degraded from the truth, and mildly."""

    name: str
    video: Path
    truth: GroundTruthClip
    degraded: Path
    mild: Path


@dataclass(frozen=True)
class Variant:
    """A name and the options that make it; top-level fields and dotted options together."""

    name: str
    options: dict[str, Any]


Key = tuple[str, str, str]


def sequence_scene(name: str, folder: Path, frames: int | None) -> Scene:
    """A recorded sequence; its degraded depth is made from the sensor's."""
    sequence = SHARED / "data" / name
    truth = read_sequence(sequence).frames(slice(frames))
    depth = np.stack([truth.full_truth_m(k) for k in range(len(truth))])
    return Scene(name, sequence / "color", truth, *write_degraded(depth, folder))


def synthetic_scene(name: str, folder: Path, frames: int | None) -> Scene:
    """A rendered scene; the temporal alignment error is left out where things move."""
    clip = render_clip(scene(name), frames=frames or SYNTHETIC_FRAMES, wh=SYNTHETIC_WH, noise_sigma=1.2)
    truth = read_sequence(write_sequence(clip, folder / name), d_max_m=80.0)
    if (clip.roles == Role.MOVER).any():
        truth = replace(truth, world_from_cam=None, poses_absent="things move in this scene")
    video = write_video(clip, folder / f"{name}.mp4")
    return Scene(name, video, truth, *write_degraded(clip.depth, folder))


def write_degraded(depth: np.ndarray, folder: Path) -> tuple[Path, Path]:
    """Save what an unsteady network of good accuracy would predict, and what one of the best would."""
    paths = folder / "degraded.npz", folder / "mild.npz"
    for path, config in zip(paths, (None, MILD), strict=True):
        maps = degrade(depth, SEED, config)
        representation, ambiguity = np.array(maps.representation.value), np.array(maps.ambiguity.value)
        np.savez(path, depth=maps.depth, valid=maps.valid, representation=representation, ambiguity=ambiguity)
    return paths


CLIPS: dict[str, Callable[[str, Path, int | None], Scene]] = {
    "redkitchen": sequence_scene,
    "holowalk": sequence_scene,
    "room": synthetic_scene,
    "street": synthetic_scene,
    "forward": synthetic_scene,
    "static_camera_movers": synthetic_scene,
}


def is_there(name: str) -> bool:
    """Whether a clip can be measured here: rendered ones always, recorded ones where the shared data is."""
    return CLIPS[name] is not sequence_scene or (SHARED / "data" / name).is_dir()


def depth_spec(name: str, clip: Scene) -> str | None:
    """The depth backend of a row, None where it does not apply: networks for rooms see only recorded rooms."""
    if name == "motion":
        return "motion"
    made = {"degraded": clip.degraded, "mild": clip.mild}
    if name in made:
        return f"precomputed:{made[name]}"
    return f"onnx:{SHARED / 'models' / NETWORKS[name]}" if CLIPS[clip.name] is sequence_scene else None


def segmentation() -> dict[str, str]:
    """Semantic network when it is there, and colour regions."""
    model = SHARED / "models" / SEGMENTATION
    return {"semantic": f"onnx:{model}" if model.is_file() else "none", "panoptic": "regions"}


def run(clip: Scene, depth: str, variant: Variant, folder: Path) -> dict[str, Any]:
    """Process and score one clip: one row of the results."""
    options = {**segmentation(), **variant.options}
    top = {key: value for key, value in options.items() if "." not in key}
    dotted = {key: value for key, value in options.items() if "." in key}
    began = time.perf_counter()
    result = process(
        clip.video,
        preset="offline",
        depth=depth,
        output_dir=folder / "output" / variant.name.replace(" ", "-"),
        working_dir=folder / "working",
        options={"video.max_frames": len(clip.truth), **dotted},
        **top,
    )
    seconds = time.perf_counter() - began
    scores = score_prediction(open_prediction(result.folder), clip.truth)
    return {
        "variant": variant.name,
        "options": {key: str(value) for key, value in variant.options.items()},
        "frames": len(clip.truth),
        "seconds": round(seconds, 1),
        "stage_seconds": result.manifest.get("seconds_by_stage", {}),
        "flicker_percent": result.manifest.get("flicker_percent", {}).get("fused"),
        "scores": rounded(scores.as_json()),
    }


def rounded(value: Any) -> Any:
    """Floats to six digits, so that files compare."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def sensor_row(clip: Scene, folder: Path) -> dict[str, Any]:
    """The ground truth scored against itself: the floor that sensor noise sets for the temporal metrics."""
    depth = np.stack([clip.truth.full_truth_m(k) for k in range(len(clip.truth))])
    path = folder / "sensor.npz"
    np.savez(path, depth=depth, valid=depth > 0, representation=np.array("z_depth"), ambiguity=np.array("metric"))
    scores: ClipScores = score_prediction(open_prediction(path, ambiguity="metric"), clip.truth)
    return {"variant": "sensor", "options": {}, "frames": len(clip.truth), "scores": rounded(scores.as_json())}


def parse_value(text: str) -> Any:
    """true, false, numbers and lists as JSON; anything else as text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def variants(arguments: argparse.Namespace) -> list[Variant]:
    """Those asked for by name, all ablations, and the combinations given."""
    known = {**STANDARD, **ABLATIONS}
    names = [*(arguments.variants or STANDARD), *(ABLATIONS if arguments.ablations else ())]
    found = [Variant(name, known[name]) for name in dict.fromkeys(names)]
    for text in arguments.ablate:
        pairs = (pair.partition("=") for pair in text.split(","))
        found.append(Variant(text, {key: parse_value(value) for key, _, value in pairs}))
    for variant in found:
        # A misspelt option fails here, not an hour later.
        preset("offline").with_values(variant.options)
    return found


def rows(arguments: argparse.Namespace, folder: Path, wanted: Callable[[Key], bool]) -> Iterator[dict[str, Any]]:
    """Every clip with every depth in every variant that is ``wanted``."""
    for name in arguments.clips:
        if not is_there(name):
            print(f"{name}: skipped, {ABSENT}", flush=True)
            yield {"clip": name, "depth": "", "variant": "", "skipped": ABSENT}
            continue
        clip_folder = folder / name
        clip_folder.mkdir(parents=True)
        clip = CLIPS[name](name, clip_folder, arguments.frames)
        if CLIPS[name] is sequence_scene and wanted((name, "sensor", "sensor")):
            yield {"clip": name, "depth": "sensor", **sensor_row(clip, clip_folder)}
        for depth in arguments.depths:
            spec = depth_spec(depth, clip)
            for variant in variants(arguments) if spec is not None else ():
                if wanted((name, depth, variant.name)):
                    row = run(clip, str(spec), variant, clip_folder / depth)
                    print(summary(name, depth, row), flush=True)
                    yield {"clip": name, "depth": depth, **row}
        shutil.rmtree(clip_folder)


def key_of(row: dict[str, Any]) -> Key:
    """What a row measures."""
    return row["clip"], row["depth"], row["variant"]


def read_rows(path: Path) -> dict[Key, dict[str, Any]]:
    """The rows of a results file by their keys; none where there is no file."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    commit = content["environment"]["commit"]
    return {key_of(row): {"commit": commit, **row} for row in content["rows"] if "skipped" not in row}


def write_rows(path: Path, found: dict[Key, dict[str, Any]], where: dict[str, Any]) -> None:
    """Write a results file, in the order of the clips, depths and variants; ``where`` is the environment."""
    order = {name: place for place, name in enumerate([*CLIPS, "sensor", *DEPTHS, *STANDARD, *ABLATIONS])}
    ordered = sorted(found.values(), key=lambda row: [(order.get(part, len(order)), part) for part in key_of(row)])
    content = {"command": "python benchmarks/quality.py", "environment": where, "seed": SEED, "rows": ordered}
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def differences(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """Names of the figures of one row that are not what they were; those that only one of the two has among them."""
    before, after = figures(old), figures(new)
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def figures(row: dict[str, Any]) -> dict[str, Any]:
    """What is the same in every run, by name: all measures, the flicker and the counts, but no times."""
    scores = row["scores"]
    counts = {f"count of {name}": value for name, value in scores["counts"].items()}
    groups = scores["groups"].items()
    measures = {f"{group} {name}": value for group, found in groups for name, value in found.items()}
    return {"frames": row["frames"], "flicker_percent": row.get("flicker_percent"), **counts, **measures}


def summary(clip: str, depth: str, row: dict[str, Any]) -> str:
    """One line for the terminal."""
    values = row["scores"]["groups"]["affine"]
    shown = " ".join(f"{key} {values[key]['value']}" for key in ("abs_rel", "delta1", "tae", "boundary_f1"))
    return f"{clip:22} {depth:10} {row['variant']:40} {shown} ({row.get('seconds', 0)} s)"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="+", choices=list(CLIPS), default=list(CLIPS))
    parser.add_argument("--depths", nargs="+", choices=DEPTHS, default=list(DEPTHS))
    parser.add_argument(
        "--variants", nargs="+", choices=[*STANDARD, *ABLATIONS], help=f"default: {', '.join(STANDARD)}"
    )
    parser.add_argument("--ablations", action="store_true", help="one more row for each stage switched off")
    parser.add_argument("--ablate", action="append", default=[], metavar="KEY=VALUE[,KEY=VALUE]", help="one more row")
    parser.add_argument("--frames", type=int, help="only the first N frames of each clip")
    parser.add_argument("--results", default="quality", help="name of the file in benchmarks/results")
    parser.add_argument("--fresh", action="store_true", help="forget the rows that are in the file")
    parser.add_argument("--skip-existing", action="store_true", help="leave rows that this commit has measured")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="write nothing; exit with 1 where a figure differs, or none can be compared",
    )
    return parser


def main() -> None:
    """Measure, merge into the results, rebuild the tables."""
    arguments = parser().parse_args()
    path = RESULTS / f"{arguments.results}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {} if arguments.fresh and not arguments.compare else read_rows(path)
    with tempfile.TemporaryDirectory(prefix="stf-depth-quality-") as temporary:
        if arguments.compare:
            sys.exit(compare(arguments, Path(temporary), known))
        measure(arguments, Path(temporary), known, path)
    print(f"wrote {path}")
    if arguments.results == "quality":
        tables.rewrite()


def measure(arguments: argparse.Namespace, folder: Path, known: dict[Key, dict[str, Any]], path: Path) -> None:
    """Add rows to ``known``; the file is written after each, so that a run that was interrupted leaves what it has."""
    where = environment()
    commit = where["commit"]

    def wanted(key: Key) -> bool:
        there = known.get(key, {})
        same = there.get("commit") == commit and there.get("asked_frames") == arguments.frames
        return not (arguments.skip_existing and same)

    for row in rows(arguments, folder, wanted):
        known[key_of(row)] = {**row, "commit": commit, "asked_frames": arguments.frames}
        write_rows(path, known, where)


def compare(arguments: argparse.Namespace, folder: Path, known: dict[Key, dict[str, Any]]) -> int:
    """Measure again what ``known`` has; 1 where a figure differs or no row could be compared, 0 otherwise."""
    compared = differing = 0
    for row in rows(arguments, folder, known.__contains__):
        if "skipped" in row:
            continue
        found = differences(row, known[key_of(row)])
        compared, differing = compared + 1, differing + bool(found)
        print(f"{' / '.join(key_of(row))}: {', '.join(found) or 'the same figures'}", flush=True)
    print(f"{differing} of {compared} rows differ")
    return int(differing > 0 or not compared)


if __name__ == "__main__":
    main()
