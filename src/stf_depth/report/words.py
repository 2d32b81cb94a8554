"""What a result means, in words."""

from __future__ import annotations

import re
from typing import Any

from stf_depth.types import Ambiguity, MotionKind, Representation

__all__ = ["MOTION", "citation", "licence_note", "meaning", "without_folders"]

_KIND = {
    Representation.DISPARITY: "Disparity: larger is nearer.",
    Representation.Z_DEPTH: "Z-depth: distance along the optical axis, larger is farther.",
}
_UNITS = {
    (Representation.DISPARITY, Ambiguity.METRIC): "Its unit is 1/m: 1 divided by the value is a distance in metres.",
    (Representation.Z_DEPTH, Ambiguity.METRIC): "Its unit is the metre.",
    (Representation.DISPARITY, Ambiguity.SCALE): (
        "One factor per shot is unknown: 1 divided by the value is a distance in an unknown unit."
    ),
    (Representation.Z_DEPTH, Ambiguity.SCALE): "One factor per shot is unknown: ratios hold, metres do not.",
    (Representation.DISPARITY, Ambiguity.AFFINE): (
        "One factor and one offset per shot are unknown: the order of surfaces holds, distances and ratios do not."
    ),
    (Representation.Z_DEPTH, Ambiguity.AFFINE): (
        "One factor and one offset per shot are unknown: the order of surfaces holds, distances and ratios do not."
    ),
}
_FOLDERS = re.compile(r"(?<![\w.~-])(?:~?/|[A-Za-z]:\\)[^?]*[/\\](?=[^/\\?])")
MOTION = {
    MotionKind.PARALLAX: "moves through the scene",
    MotionKind.ROTATION: "turns on the spot",
    MotionKind.STATIC: "does not move",
    MotionKind.ZOOM: "zooms",
    MotionKind.UNSOLVED: "not solved",
}


def meaning(representation: Representation, ambiguity: Ambiguity) -> str:
    """What a depth value measures and in which unit.

    >>> meaning(Representation.Z_DEPTH, Ambiguity.METRIC)
    'Z-depth: distance along the optical axis, larger is farther. Its unit is the metre.'
    """
    return f"{_KIND[representation]} {_UNITS[representation, ambiguity]}"


def licence_note(commercial: bool | None) -> str:
    """Whether weights may be used commercially, in a word."""
    return {True: "yes", False: "no", None: "unknown"}[commercial]


def without_folders(name: str) -> str:
    """A model's name without the folders of the machine that it was read from.

    >>> without_folders("onnx:/data/nets/small.onnx?ambiguity=scale"), without_folders("org/model")
    ('onnx:small.onnx?ambiguity=scale', 'org/model')
    """
    return _FOLDERS.sub("", name)


def citation(version: str, models: dict[str, dict[str, Any]]) -> str:
    """A BibTeX entry, and the names of the networks to cite beside it."""
    names = ", ".join(f"{without_folders(model['name'])} ({task})" for task, model in models.items())
    return (
        "@software{stf_depth,\n"
        "  title   = {{STF-Depth}: Semantic and Temporal Fusion Depth},\n"
        f"  version = {{{version}}},\n"
        f"  note    = {{with {names}}}\n"
        "}"
    )
