"""Metres from a result that has none: one known length a shot turns scale-ambiguous depth into metric depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import AmbiguityError, ConfigError, ShapeError
from stf_depth.export.geometry import GeometryOptions, ShotGeometry, shot_ambiguity, shot_geometry
from stf_depth.export.reading import shot_of
from stf_depth.export.unit_solve import (
    CameraHeight,
    Length,
    MetricModel,
    Reference,
    ReferenceDistance,
    model_placements,
    options_for,
    unit_in_metres,
)
from stf_depth.result import DepthResult, camera_to_json
from stf_depth.types import Ambiguity, Frames, Representation, Shot
from stf_depth.visualization.range import closeness

__all__ = [
    "CameraHeight",
    "MetricModel",
    "MetricResult",
    "Reference",
    "ReferenceDistance",
    "parse_reference",
    "to_metric",
]

_FORMS = "pixel:X,Y=METRES, pixel:X,Y@FRAME=METRES, camera-height:METRES, camera-height:METRES@FRAME or model:SPEC"
_NAMED_SHOTS = 6


@dataclass(frozen=True)
class MetricResult(DepthResult):
    """A result seen in metres: z = unit_m / (gain * closeness + shift), with the placement and unit of each shot.

    sources: for each shot, where its metres come from. Nothing is written; exporters read it like any other result.
    """

    placements: tuple[ShotGeometry, ...] = ()
    units_m: tuple[float, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def representation(self) -> Representation:
        """Always ``z_depth``."""
        return Representation.Z_DEPTH

    @property
    def ambiguity(self) -> Ambiguity:
        """Always ``metric``."""
        return Ambiguity.METRIC

    @cached_property
    def depth(self) -> Frames:
        """(T, H, W) float32 z in metres, 0 where infinitely far, lazily converted."""
        return _MetricFrames(DepthResult(self.folder), self.placements, self.units_m)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest with every shot metric and the camera paths in metres."""
        content = dict(DepthResult(self.folder).manifest)
        content["shots"] = [
            {
                **shot,
                "ambiguity": Ambiguity.METRIC.value,
                "camera": self._camera(number),
                "camera_unit": "m",
                "metres_from": self.sources[number],
            }
            for number, shot in enumerate(content["shots"])
        ]
        return content

    def _camera(self, number: int) -> dict[str, Any]:
        geometry = self.placements[number]
        values = camera_to_json(DepthResult(self.folder).cameras[number])
        poses = geometry.world_from_cam.copy()
        poses[:, :3, 3] *= self.units_m[number]
        return {**values, "world_from_cam": poses.tolist(), "solved": geometry.posed.tolist()}


@dataclass(frozen=True)
class _MetricFrames:
    result: DepthResult
    placements: tuple[ShotGeometry, ...]
    units_m: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.result.depth.shape

    def __len__(self) -> int:
        return len(self.result)

    def __getitem__(self, index: Any, /) -> NDArray[np.float32]:
        picked = np.arange(len(self))[index]
        if np.ndim(picked):
            return np.stack([self[i] for i in picked]) if len(picked) else np.zeros((0, *self.shape[1:]), np.float32)
        number = next(n for n, place in enumerate(self.placements) if place.shot.start <= index < place.shot.stop)
        depth = np.asarray(self.result.depth[index])
        close = closeness(depth, self.result.representation, self.result.ambiguity)
        z = self.placements[number].z(close) * np.float32(self.units_m[number])
        return np.asarray(np.nan_to_num(z, nan=0.0), np.float32)


def to_metric(
    result: DepthResult, reference: Reference | Sequence[Reference], *, options: GeometryOptions | None = None
) -> DepthResult:
    """z_m = u z with u fixed by one known length in each shot; returns a view of the result in metres.

    reference: one for each shot that is not metric yet, told apart by their frames; or one ``MetricModel``, whose
    metric depth gives every shot its unit. Depth with an unknown offset needs the offset too: from the solved camera
    path, from the model, or from ``far_over_near`` in ``options``. The camera's height needs pixels segmented as
    ground.

    Raises AmbiguityError where the offset is unknown, a shot has no reference, or a reference is given for depth that
    is in metres already, which no reference changes; GeometryError where the reference
    falls on no valid depth, no ground is seen or the model contradicts the depth, ConfigError for two references in
    one shot, ShapeError for a pixel or frame outside the result.
    """
    given = [reference] if isinstance(reference, Reference) else list(reference)
    if result.ambiguity is Ambiguity.METRIC:
        raise _metric_already(result.folder, given)
    lengths, model = _lengths_by_shot(result, given), _only_model(result, given)
    open_shots = [n for n in _shots_without_metres(result) if n not in lengths]
    if open_shots and model is None:
        raise _unreferenced(result, [result.shots[number] for number in open_shots])
    known = {number: _placed(result, number, length, options) for number, length in lengths.items()}
    if open_shots and model is not None:
        known |= model_placements(result, open_shots, model, options)
    sources = [
        f"given: {lengths[n]}" if n in lengths else str(model) if n in open_shots else ""
        for n in range(len(result.shots))
    ]
    for number in range(len(result.shots)):
        if number not in known:
            known[number] = shot_geometry(result, number, options_for(result, number, options)), 1.0
    ordered = [known[number] for number in sorted(known)]
    places = tuple(replace(place, max_z=np.inf) for place, _ in ordered)
    return MetricResult(result.folder, places, tuple(unit_m for _, unit_m in ordered), tuple(sources))


def _shots_without_metres(result: DepthResult) -> list[int]:
    return [n for n in range(len(result.shots)) if shot_ambiguity(result, n) is not Ambiguity.METRIC]


def _lengths_by_shot(result: DepthResult, given: Sequence[Reference]) -> dict[int, Length]:
    """The known length of each shot that has one and needs it."""
    found: dict[int, Length] = {}
    for one in given:
        if isinstance(one, MetricModel):
            continue
        if not 0 <= one.frame < len(result):
            raise ShapeError("reference frame outside the result", expected=f"0 to {len(result) - 1}", got=one.frame)
        number = shot_of(result, one.frame)
        if number in found:
            raise ConfigError("two metric references in one shot", where=result.folder, got=f"{found[number]}; {one}")
        found[number] = one
    needless = [one for number, one in found.items() if number not in _shots_without_metres(result)]
    if needless:
        raise _metric_already(f"{result.folder} frame {needless[0].frame}", needless)
    return found


def _metric_already(where: object, given: Sequence[Reference]) -> AmbiguityError:
    return AmbiguityError(
        "the depth is in metres already",
        where=where,
        got="; ".join(str(one) for one in given),
        hint="Leave --to-metric out, or run again with a relative model to state a length of your own",
    )


def _only_model(result: DepthResult, given: Sequence[Reference]) -> MetricModel | None:
    models = [one for one in given if isinstance(one, MetricModel)]
    if len(models) > 1:
        raise ConfigError("several metric models", where=result.folder, got=", ".join(one.spec for one in models))
    return models[0] if models else None


def _unreferenced(result: DepthResult, missing: Sequence[Shot]) -> AmbiguityError:
    spans = ", ".join(f"{shot.start} to {shot.stop - 1}" for shot in missing[:_NAMED_SHOTS])
    more = "" if len(missing) <= _NAMED_SHOTS else f" and {len(missing) - _NAMED_SHOTS} more shots"
    example = f"--to-metric pixel:X,Y@{missing[0].start}=METRES"
    return AmbiguityError(
        "every shot has a unit of its own and needs a metric reference of its own",
        where=result.folder,
        got=f"none for frames {spans}{more}",
        hint=f"Give one for each shot, for example {example}; or a metric model for all, --to-metric model:SPEC",
    )


def _placed(
    result: DepthResult, number: int, length: Length, options: GeometryOptions | None
) -> tuple[ShotGeometry, float]:
    needs_focal = isinstance(length, CameraHeight)
    place = shot_geometry(result, number, options_for(result, number, options, needs_focal=needs_focal))
    return place, unit_in_metres(result, place, length)


def parse_reference(text: str) -> Reference:
    """Reference from ``pixel:X,Y[@FRAME]=METRES``, ``camera-height:METRES[@FRAME]`` or ``model:SPEC``.

    Raises ConfigError for anything else.

    >>> parse_reference("pixel:320,240@12=2.5")
    ReferenceDistance(x=320, y=240, distance_m=2.5, frame=12)
    """
    kind, _, rest = text.partition(":")
    try:
        if kind == "camera-height":
            height, _, frame = rest.partition("@")
            return CameraHeight(_positive(height), int(frame or 0))
        if kind == "pixel":
            place, _, metres = rest.partition("=")
            pixel, _, frame = place.partition("@")
            x, y = (int(value) for value in pixel.split(","))
            return ReferenceDistance(x, y, _positive(metres), int(frame or 0))
        if kind == "model" and rest:
            return MetricModel(rest)
    except ValueError:
        pass  # said below, together with the right forms
    raise ConfigError("cannot read the metric reference", expected=_FORMS, got=repr(text))


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < np.inf:
        raise ValueError(text)
    return value
