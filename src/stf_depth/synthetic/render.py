"""Ray casting: colour by supersampling, and exact depth, labels, flow and occlusion at pixel centres."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import ShapeError
from stf_depth.synthetic.scenes import Rays, Scene, Take
from stf_depth.synthetic.textures import sample_texture
from stf_depth.types import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Intrinsics,
    Role,
    SegmentInfo,
    SegmentMaps,
    Shot,
    Uint8Array,
)

__all__ = ["SyntheticClip", "flow_between", "render_clip"]

LIGHT_WORLD = np.array([-0.45, -0.8, -0.4]) / np.linalg.norm([-0.45, -0.8, -0.4])
SUPERSAMPLING = 3
CREASE = 2e-3  # relative bend of the inverse depth from pixel to pixel
SKY_TEXELS_PER_RADIAN = 120.0


@dataclass(frozen=True)
class SyntheticClip:
    """A rendered clip with exact truth; index 0 of the flow arrays is the pair of frames 0 and 1.

    rgb: (T, H, W, 3) uint8. depth: (T, H, W) float32 z in metres, infinite in the sky. labels: (T, H, W) int32,
    segment ids of ``segments`` (unique over all takes). roles: (T, H, W) uint8 of ``Role``. flow_forward,
    flow_backward: (T-1, H, W, 2) float32 pixels, from frame t to t+1 and from t+1 to t. occlusion_forward,
    occlusion_backward: (T-1, H, W) bool, True where the source pixel is hidden or outside in the other frame, and
    everywhere across a cut, where flow is 0. world_from_cam: (T, 4, 4) float64. focal_px: (T,) float64.
    intrinsics: of frame 0. pts_seconds: (T,) float64.
    """

    name: str
    rgb: Uint8Array
    depth: Float32Array
    labels: Int32Array
    roles: Uint8Array
    segments: Mapping[int, SegmentInfo]
    flow_forward: Float32Array
    flow_backward: Float32Array
    occlusion_forward: BoolArray
    occlusion_backward: BoolArray
    world_from_cam: Float64Array
    focal_px: Float64Array
    intrinsics: Intrinsics
    pts_seconds: Float64Array
    shots: tuple[Shot, ...]
    frame_rate: float

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def occlusion(self) -> BoolArray:
        """Occlusion of the forward flow."""
        return self.occlusion_forward

    @property
    def disparity(self) -> Float32Array:
        """1 / z in 1/metres, 0 in the sky."""
        return np.asarray(1 / self.depth, np.float32)

    def segment_maps(self) -> SegmentMaps:
        """The labels as segment maps with names and roles."""
        return SegmentMaps(self.labels, tuple(self.segments for _ in range(len(self))))


@dataclass(frozen=True)
class _View:
    """A take at one moment, seen by its camera."""

    take: Take
    time_seconds: float
    intrinsics: Intrinsics

    @classmethod
    def of(cls, moment: _Moment, wh: tuple[int, int]) -> _View:
        intrinsics = moment.take.camera.intrinsics(moment.time_seconds, wh)
        return cls(moment.take, moment.time_seconds, intrinsics)

    @property
    def world_from_cam(self) -> Float64Array:
        return self.take.camera.world_from_cam(self.time_seconds)

    def directions(self, pixels: Float64Array, dtype: type[np.floating]) -> Rays:
        """World directions (3, n) with unit length along the optical axis, so that ray parameters are z-depths."""
        k = self.intrinsics
        x, y = (pixels[0] - k.cx_px) / k.fx_px, (pixels[1] - k.cy_px) / k.fy_px
        return np.asarray(self.world_from_cam[:3, :3] @ np.stack([x, y, np.ones_like(x)]), dtype)

    def project(self, points_world: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Pixels (2, n) and z (n,) of world points (4, n) homogeneous; w = 0 for points at infinity."""
        k = self.intrinsics
        x, y, z, _ = np.linalg.inv(self.world_from_cam) @ points_world
        safe = np.where(z > 1e-6, z, np.inf)
        return np.stack([k.fx_px * x / safe + k.cx_px, k.fy_px * y / safe + k.cy_px]), z


def _pixel_grid(wh: tuple[int, int]) -> Float64Array:
    """Pixel centres (2, n), row by row."""
    x, y = np.meshgrid(np.arange(wh[0], dtype=np.float64), np.arange(wh[1], dtype=np.float64))
    return np.stack([x.ravel(), y.ravel()])


def _cast(view: _View, directions: Rays) -> tuple[Rays, NDArray[np.int64]]:
    """z (n,), infinite in the sky, and the index (n,) of the thing hit, -1 in the sky."""
    nearest = np.full(directions.shape[1], np.inf, directions.dtype)
    hit = np.full(directions.shape[1], -1, np.int64)
    centre = view.world_from_cam[:3, 3]
    for index, thing in enumerate(view.take.things):
        pose = thing.world_from_thing(view.time_seconds)
        rotation = pose[:3, :3]
        local = (rotation.T.astype(directions.dtype)) @ directions
        s = thing.shape.intersect(rotation.T @ (centre - pose[:3, 3]), local)
        closer = s < nearest
        nearest[closer], hit[closer] = s[closer], index
    return nearest, hit


def _shade(view: _View, directions: Rays, z: Rays, hit: NDArray[np.int64], rays_a_pixel: float) -> Float32Array:
    """RGB (n, 3) float32, 0 to 255, of rays and what they hit; ``rays_a_pixel`` along each direction."""
    rgb = np.empty((directions.shape[1], 3), np.float32)
    sky = hit < 0
    rgb[sky] = _sky_colour(view.take, directions[:, sky], view.intrinsics.fx_px * rays_a_pixel)
    for index in range(len(view.take.things)):
        chosen = np.flatnonzero(hit == index)
        if chosen.size:
            rays, depths = directions[:, chosen], z[chosen]
            rgb[chosen] = _thing_colour(view, index, rays, depths, view.intrinsics.fx_px * rays_a_pixel)
    return rgb


def _sky_colour(take: Take, directions: Rays, focal_px: float) -> Float32Array:
    unit = directions / np.linalg.norm(directions, axis=0)
    elevation = np.arcsin(np.clip(-unit[1], -1, 1))
    uv = np.stack([np.arctan2(unit[0], unit[2]), 2 * elevation]) * SKY_TEXELS_PER_RADIAN
    footprint = np.full(len(elevation), SKY_TEXELS_PER_RADIAN / focal_px, np.float32)
    texture = sample_texture(uv.astype(np.float32), np.zeros(len(elevation), np.int64), footprint)
    horizon, zenith = (np.array(colour, np.float32) for colour in take.sky_rgb)
    height = np.clip(elevation / 0.6, 0, 1)[:, None]
    return np.asarray(horizon * (1 - height) + zenith * height + 14 * (texture[:, 1:] - 0.5), np.float32)


def _thing_colour(view: _View, index: int, directions: Rays, z: Rays, focal_px: float) -> Float32Array:
    thing = view.take.things[index]
    pose = thing.world_from_thing(view.time_seconds)
    rotation = pose[:3, :3]
    centre = view.world_from_cam[:3, 3] - pose[:3, 3]
    points = (rotation.T @ centre)[:, None].astype(z.dtype) + z * (rotation.T.astype(z.dtype) @ directions)
    uv, normals = thing.shape.surface(points)
    unit = directions / np.linalg.norm(directions, axis=0)
    cosine = abs(np.einsum("in,in->n", unit, (rotation @ normals).astype(z.dtype)))
    look = thing.surface
    # The square root is a compromise between blur along and aliasing across a slanted surface.
    footprint = z / focal_px * look.texels_per_m / np.sqrt(np.maximum(cosine, 0.04))
    variant = np.full(len(z), look.variant, np.int64)
    texture = sample_texture((uv * look.texels_per_m).astype(np.float32), variant, footprint.astype(np.float32))
    dark, light = (np.array(colour, np.float32) for colour in (look.dark_rgb, look.light_rgb))
    albedo = dark + (light - dark) * texture[:, :1]
    diffuse = np.maximum(np.einsum("i,in->n", LIGHT_WORLD, rotation @ normals), 0)
    shade = (0.62 + 0.38 * diffuse) * (0.8 + 0.4 * texture[:, 1])
    return np.asarray(albedo * shade[:, None], np.float32)


@dataclass(frozen=True)
class _Truth:
    """z (H * W,) float64 and things hit (H * W,) at the pixel centres of a view."""

    view: _View
    pixels: Float64Array
    z: Float64Array
    hit: NDArray[np.int64]

    @classmethod
    def of(cls, view: _View, wh: tuple[int, int]) -> _Truth:
        pixels = _pixel_grid(wh)
        z, hit = _cast(view, view.directions(pixels, np.float64))
        return cls(view, pixels, np.asarray(z, np.float64), hit)


def _render_rgb(truth: _Truth, wh: tuple[int, int]) -> Float32Array:
    """(H, W, 3) float32: one ray a pixel, and SUPERSAMPLING^2 where a pixel holds an edge."""
    view = truth.view
    directions = view.directions(truth.pixels, np.float32)
    image = _shade(view, directions, truth.z.astype(np.float32), truth.hit, 1.0)
    edges = np.flatnonzero(_edges(truth, wh))
    offset = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    shifts = np.stack(np.meshgrid(offset, offset)).reshape(2, 1, -1)
    samples = view.directions((truth.pixels[:, edges, None] + shifts).reshape(2, -1), np.float32)
    colours = _shade(view, samples, *_cast(view, samples), SUPERSAMPLING)
    image[edges] = colours.reshape(len(edges), SUPERSAMPLING**2, 3).mean(1, dtype=np.float32)
    return image.reshape(wh[1], wh[0], 3)


def _edges(truth: _Truth, wh: tuple[int, int]) -> BoolArray:
    """(H * W,) True beside a border between things or a crease, where inverse depth is not linear in the image."""
    hit = truth.hit.reshape(wh[1], wh[0]).astype(np.int16)
    inverse = (1 / truth.z).reshape(wh[1], wh[0]).astype(np.float32)
    border = cv2.morphologyEx(hit, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    crease = abs(cv2.Laplacian(inverse, cv2.CV_32F)) > CREASE * inverse
    return np.asarray(border | crease).ravel()


def _moved_points(truth: _Truth, target: _View) -> Float64Array:
    """World points (4, n) at the target's time of what the source pixels show; w = 0 in the sky."""
    directions = truth.view.directions(truth.pixels, np.float64)
    sky = truth.hit < 0
    points = np.concatenate([directions, np.zeros((1, directions.shape[1]))])
    centre = truth.view.world_from_cam[:3, 3:]
    points[:3, ~sky] = centre + directions[:, ~sky] * truth.z[~sky]
    points[3, ~sky] = 1
    for index, thing in enumerate(truth.view.take.things):
        chosen = truth.hit == index
        before = thing.world_from_thing(truth.view.time_seconds)
        after = thing.world_from_thing(target.time_seconds)
        if chosen.any() and not np.array_equal(before, after):
            points[:, chosen] = after @ np.linalg.inv(before) @ points[:, chosen]
    return np.asarray(points, np.float64)


def _flow(truth: _Truth, target: _View) -> tuple[Float32Array, BoolArray]:
    """Flow (H, W, 2) from the source's pixels to the target, and where they are hidden or outside there."""
    k = target.intrinsics
    landing, z = target.project(_moved_points(truth, target))
    inside = (landing[0] >= -0.5) & (landing[0] <= k.width_px - 0.5)
    inside &= (landing[1] >= -0.5) & (landing[1] <= k.height_px - 0.5) & (z > 1e-6)
    seen_z, seen = _cast(target, target.directions(landing[:, inside], np.float64))
    expected = np.where(truth.hit[inside] < 0, np.inf, z[inside])
    agree = (seen == truth.hit[inside]) & np.isclose(seen_z, expected, rtol=1e-4, atol=0)
    visible = np.zeros(len(z), bool)
    visible[inside] = agree
    flow = np.where(z > 1e-6, landing - truth.pixels, 0)
    shape = (k.height_px, k.width_px)
    return flow.T.reshape(*shape, 2).astype(np.float32), ~visible.reshape(shape)


@dataclass(frozen=True)
class _Moment:
    """When and where a frame is taken."""

    take: Take
    take_index: int
    time_seconds: float
    shot: Shot


def _schedule(scene: Scene, frames: int) -> list[_Moment]:
    """The moment of every frame; takes share the frames as evenly as they go."""
    count = len(scene.takes)
    if frames < count:
        raise ShapeError("too few frames for the takes of the scene", expected=f">= {count}", got=frames)
    plan = []
    for number, take in enumerate(scene.takes):
        shot = Shot(round(number * frames / count), round((number + 1) * frames / count))
        plan += [_Moment(take, number, index / scene.frame_rate, shot) for index in range(len(shot))]
    return plan


def _no_flow(wh: tuple[int, int]) -> tuple[Float32Array, BoolArray]:
    """Zero flow, hidden everywhere."""
    return np.zeros((wh[1], wh[0], 2), np.float32), np.ones((wh[1], wh[0]), bool)


def flow_between(
    scene: Scene, source: int, target: int, *, frames: int, wh: tuple[int, int]
) -> tuple[Float32Array, BoolArray]:
    """Exact flow (H, W, 2) from frame ``source`` to frame ``target`` of ``render_clip(scene, frames, wh)``.

    Also returns (H, W) bool, True where the source pixel is hidden or outside in the target. Across a cut flow is 0
    and everything is hidden.
    """
    plan = _schedule(scene, frames)
    first, second = plan[source], plan[target]
    if first.shot != second.shot:
        return _no_flow(wh)
    return _flow(_Truth.of(_View.of(first, wh), wh), _View.of(second, wh))


def _segments(scene: Scene) -> tuple[dict[int, SegmentInfo], list[Int32Array]]:
    """Segment table over all takes, and for each take the ids of sky and things, in this order."""
    table = {1: SegmentInfo("sky", Role.SKY)}
    ids = []
    for take in scene.takes:
        first = len(table) + 1
        infos = (SegmentInfo(thing.name, thing.role, is_thing=thing.role is Role.MOVER) for thing in take.things)
        table.update(enumerate(infos, start=first))
        ids.append(np.array([1, *range(first, first + len(take.things))], np.int32))
    return table, ids


def render_clip(
    scene: Scene, frames: int, wh: tuple[int, int], *, noise_sigma: float = 0.0, seed: int = 0
) -> SyntheticClip:
    """Render ``frames`` frames of a scene at ``wh`` pixels with exact depth, labels, flow, occlusion and poses.

    noise_sigma: standard deviation of the sensor noise in grey levels, drawn with ``seed``.

    Raises ShapeError when there are fewer frames than takes.

    >>> from stf_depth.synthetic import render_clip, scene
    >>> render_clip(scene("room"), frames=2, wh=(32, 18)).depth.shape
    (2, 18, 32)
    """
    plan = _schedule(scene, frames)
    table, ids = _segments(scene)
    parts = list(_frames(plan, ids, wh, np.random.default_rng(seed), noise_sigma))
    labels = np.stack([part.labels for part in parts])
    roles = np.array([Role.UNKNOWN, *(info.role for info in table.values())], np.uint8)
    hw = (wh[1], wh[0])
    pairs = parts[1:]
    return SyntheticClip(
        name=scene.name,
        rgb=np.stack([part.rgb for part in parts]),
        depth=np.stack([part.depth for part in parts]),
        labels=labels,
        roles=roles[labels],
        segments=table,
        flow_forward=np.array([part.flow_from_previous for part in pairs], np.float32).reshape(-1, *hw, 2),
        flow_backward=np.array([part.flow_to_previous for part in pairs], np.float32).reshape(-1, *hw, 2),
        occlusion_forward=np.array([part.hidden_from_previous for part in pairs], bool).reshape(-1, *hw),
        occlusion_backward=np.array([part.hidden_in_previous for part in pairs], bool).reshape(-1, *hw),
        world_from_cam=np.stack([part.view.world_from_cam for part in parts]),
        focal_px=np.array([part.view.intrinsics.fx_px for part in parts]),
        intrinsics=parts[0].view.intrinsics,
        pts_seconds=np.arange(frames) / scene.frame_rate,
        shots=tuple(dict.fromkeys(moment.shot for moment in plan)),
        frame_rate=scene.frame_rate,
    )


@dataclass(frozen=True)
class _Part:
    """One rendered frame, with the flow between it and the frame before (hidden everywhere in the first)."""

    view: _View
    rgb: Uint8Array
    depth: Float32Array
    labels: Int32Array
    flow_from_previous: Float32Array
    hidden_from_previous: BoolArray
    flow_to_previous: Float32Array
    hidden_in_previous: BoolArray


def _frames(
    plan: list[_Moment], ids: list[Int32Array], wh: tuple[int, int], rng: np.random.Generator, noise_sigma: float
) -> Iterator[_Part]:
    previous: tuple[_Truth, Shot] | None = None
    for moment in plan:
        truth = _Truth.of(_View.of(moment, wh), wh)
        forward = backward = _no_flow(wh)
        if previous is not None and previous[1] == moment.shot:
            forward, backward = _flow(previous[0], truth.view), _flow(truth, previous[0].view)
        image = _render_rgb(truth, wh)
        if noise_sigma > 0:
            image += rng.standard_normal(image.shape, np.float32) * np.float32(noise_sigma)
        yield _Part(
            truth.view,
            np.clip(np.rint(image), 0, 255).astype(np.uint8),
            truth.z.reshape(wh[1], wh[0]).astype(np.float32),
            ids[moment.take_index][truth.hit + 1].reshape(wh[1], wh[0]),
            *forward,
            *backward,
        )
        previous = truth, moment.shot
