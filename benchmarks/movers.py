"""What moving things do to the fusion of a drive, and the fusion to them, with and without masks.

    python benchmarks/movers.py
    python benchmarks/movers.py --drives 2 --frames 12 --results trial          quick; no document changes

Rendered drives past four things that move at random: oncoming cars, cars ahead, cars that are overtaken, people and
balls. Each runs through the whole pipeline, camera solve included, on true depth made unsteady and blurred. Every
thing's own relative error is compared with the input's, and the background's with that of the same drive without
anything that moves, on the same pixels. One scale and shift for each clip.

Results go to benchmarks/results/movers.json, and as a table into docs/fusion.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from measuring import environment, save_with_table, write_segments
from stf_depth.api import process
from stf_depth.evaluation.metrics import DISPARITY_FLOOR, Group, aligned_depth_m, fit_sums, truth_mask
from stf_depth.evaluation.predictions import open_prediction
from stf_depth.synthetic import (
    Box,
    Camera,
    Scene,
    Sphere,
    SyntheticClip,
    Take,
    Thing,
    degrade,
    render_clip,
    scene,
    write_video,
)
from stf_depth.synthetic.library import RED, TEAL, VIOLET, YELLOW
from stf_depth.types import Float32Array, Role

WH, NOISE, SEED, D_MAX_M = (320, 180), 1.2, 0, 80.0
COLOURS = (RED, TEAL, YELLOW, VIOLET)
CAR, PERSON = Box((1.7, 1.3, 3.6)), Box((0.5, 1.7, 0.4))

Errors = dict[str, float]


def drive(seed: int) -> Scene:
    """Past houses at 1.5 to 9 m/s, with four things that move."""
    rng = np.random.default_rng(seed)
    speed = rng.uniform(1.5, 9)
    camera = Camera(
        velocity_mps=(rng.uniform(-0.5, 0.5), 0, speed), sway_m=(0.02, 0.03, 0.02), yaw_degrees=rng.uniform(-4, 4)
    )
    movers = tuple(mover(number, speed, rng) for number in range(4))
    return Scene(f"drive {seed}", (Take(scene("forward").takes[0].things + movers, camera),))


def mover(number: int, speed: float, rng: np.random.Generator) -> Thing:
    """One of the kinds, left or right of the middle."""
    kind = rng.choice(["oncoming", "ahead", "overtaken", "person", "ball"])
    x, z = (-1, 1)[number % 2] * rng.uniform(1.2, 3.6), rng.uniform(6, 14)
    far = z + 1.6 * speed
    shape, place, velocity = {
        "oncoming": (CAR, (-abs(x), 0.95, far + 8), (0, 0, -rng.uniform(2, 9))),
        "ahead": (CAR, (x, 0.95, z), (0, 0, speed * rng.uniform(0.8, 1.2))),
        "overtaken": (CAR, (abs(x), 0.95, far), (0, 0, speed * rng.uniform(0.3, 0.7))),
        "person": (PERSON, (x, 0.75, far), (rng.uniform(-0.8, 0.8), 0, rng.uniform(-1.8, 1.8))),
        "ball": (Sphere(0.5), (x, 1.1, far), (-np.sign(x) * rng.uniform(0.5, 2), 0, rng.uniform(-1, 1))),
    }[str(kind)]
    return Thing(f"{number} {kind}", shape, place, COLOURS[number], Role.MOVER, velocity_mps=velocity)  # type: ignore[arg-type]


def no_masks(_clip: SyntheticClip, _folder: Path) -> str:
    """No segments at all."""
    return "none"


def colour_regions(_clip: SyntheticClip, _folder: Path) -> str:
    """Regions without a label."""
    return "regions"


def exact_masks(clip: SyntheticClip, folder: Path) -> str:
    """Segments and roles as they are."""
    return write_segments(clip, folder / "masks")


MASKS: dict[str, Callable[[SyntheticClip, Path], str]] = {
    "none": no_masks,
    "regions": colour_regions,
    "exact": exact_masks,
}


def relative_errors(disparity: Float32Array, clip: SyntheticClip) -> Float32Array:
    """|z - g| / g after one scale and shift in disparity, (T, H, W); NaN where the truth is too far."""
    known = truth_mask(clip.depth, D_MAX_M)
    p, truth = np.maximum(disparity, DISPARITY_FLOOR), np.where(known, clip.depth, 1.0)
    z = aligned_depth_m(p, fit_sums(p, truth, known).solve(Group.AFFINE), D_MAX_M)
    return np.where(known, np.abs(z - truth) / truth, np.nan).astype(np.float32)


def errors_of(disparity: Float32Array, clip: SyntheticClip, background: np.ndarray) -> Errors:
    """Mean error of the background and of each moving thing."""
    errors = relative_errors(disparity, clip)
    things = {info.name: number for number, info in clip.segments.items() if info.role is Role.MOVER}
    masks = {"background": background, **{name: clip.labels == number for name, number in things.items()}}
    return {name: float(np.nanmean(errors[mask])) for name, mask in masks.items() if mask.sum() > 500}


def run(clip: SyntheticClip, folder: Path, masks: str) -> Float32Array:
    """The clip through the pipeline, its own depth degraded: (T, H, W) disparity."""
    maps, depth = degrade(clip.depth, SEED), folder / "depth.npz"
    meaning = {"representation": maps.representation.value, "ambiguity": maps.ambiguity.value}
    np.savez(depth, depth=maps.depth, valid=maps.valid, **{key: np.array(text) for key, text in meaning.items()})
    video = write_video(clip, folder / "clip.mp4")
    result = process(
        video,
        preset="offline",
        depth=f"precomputed:{depth}",
        panoptic=masks,
        output_dir=folder / "output",
        working_dir=folder / "working",
    )
    prediction = open_prediction(result.folder)
    return np.stack(prediction.read(range(len(prediction))))


def rows_of(seed: int, frames: int, folder: Path) -> list[dict[str, Any]]:
    """The input and the fused result with each kind of masks, and the background without anything that moves."""
    take = drive(seed).takes[0]
    alone = replace(take, things=tuple(thing for thing in take.things if thing.role is not Role.MOVER))
    full, empty = (render_clip(Scene("drive", (part,)), frames, WH, noise_sigma=NOISE) for part in (take, alone))
    background = full.roles != Role.MOVER
    rows = [{"drive": seed, "masks": "(input)", "errors": errors_of(degrade(full.depth, SEED).depth, full, background)}]
    for kind, make in MASKS.items():
        places = {name: folder / f"{kind} {name}" for name in ("full", "empty")}
        for place in places.values():
            place.mkdir()
        fused = run(full, places["full"], make(full, places["full"]))
        absent = run(empty, places["empty"], make(empty, places["empty"]))
        errors = {**errors_of(fused, full, background), "absent": errors_of(absent, empty, background)["background"]}
        rows.append({"drive": seed, "masks": kind, "errors": {name: round(value, 6) for name, value in errors.items()}})
        print(rows[-1], flush=True)
    return rows


def markdown(content: Mapping[str, Any]) -> str:
    """One line for each kind of masks, over all drives."""
    heads = ["Masks", "Background ↓", "... nothing moving ↓", "Moving things ↓", "worse than the input", "by at most"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * 5]
    of_input = {row["drive"]: row["errors"] for row in content["rows"] if row["masks"] == "(input)"}
    for kind in ("(input)", *MASKS):
        rows = [row for row in content["rows"] if row["masks"] == kind]
        lines.append("| " + " | ".join([kind, *_cells(rows, of_input)]) + " |")
    command = f"python benchmarks/movers.py --drives {len(of_input)} --frames {content['frames']}"
    measured = f"Measured by `{command}` at commit {content['environment']['commit']}."
    return "\n".join([*lines, "", f"AbsRel with one scale and shift a clip, 320x180. {measured}"])


def _cells(rows: list[dict[str, Any]], of_input: Mapping[int, Errors]) -> list[str]:
    def mean(name: str) -> str:
        values = [row["errors"][name] for row in rows if name in row["errors"]]
        return f"{np.mean(values):.4f}" if values else "-"

    pairs = [
        (error, of_input[row["drive"]][name])
        for row in rows
        for name, error in row["errors"].items()
        if name not in ("background", "absent")
    ]
    ratios = np.array([error / before for error, before in pairs])
    things = f"{np.mean([error for error, _ in pairs]):.4f}"
    return [
        mean("background"),
        mean("absent"),
        things,
        f"{(ratios > 1).sum()} of {len(ratios)}",
        f"{max(ratios.max() - 1, 0):.0%}",
    ]


def main() -> None:
    """Measure, save, and put the table where it belongs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drives", type=int, default=12)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--results", default="movers")
    arguments = parser.parse_args()
    where = environment()
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.drives):
        with tempfile.TemporaryDirectory() as scratch:
            rows += rows_of(seed, arguments.frames, Path(scratch))
    content = {"environment": where, "frames": arguments.frames, "seed": SEED, "rows": rows}
    save_with_table(arguments.results, "movers", content, "fusion.md", markdown(content))


if __name__ == "__main__":
    main()
