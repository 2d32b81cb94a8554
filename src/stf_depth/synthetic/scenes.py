"""Scenes as plain data: shapes, surfaces, movers, cameras and takes.

Every shape lives in its own frame (metres); a ``Thing`` moves that frame through the world, whose axes are those of
the camera at rest: x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import ShapeError
from stf_depth.types import Float64Array, Intrinsics, Role

__all__ = ["Box", "Camera", "Rectangle", "Scene", "Shape", "Sphere", "Surface", "Take", "Thing", "rotation_matrix"]

Rays = NDArray[np.floating]  # (3, n)
Vector = tuple[float, float, float]
NEAREST_M = 1e-3


class Shape(Protocol):
    """A surface in its own frame."""

    def intersect(self, origin: Float64Array, directions: Rays) -> Rays:
        """Smallest s > 0 with ``origin + s * direction`` on the surface, (n,); infinite where the ray misses."""
        ...

    def surface(self, points: Rays) -> tuple[Rays, Rays]:
        """Surface coordinates (2, n) in metres and outward normals (3, n) of ``points`` (3, n) on the surface."""
        ...


@dataclass(frozen=True)
class Rectangle:
    """The patch |x| <= width / 2, |y| <= height / 2 of the plane z = 0, seen from both sides."""

    width_m: float
    height_m: float

    def intersect(self, origin: Float64Array, directions: Rays) -> Rays:
        """See ``Shape``."""
        with np.errstate(divide="ignore", invalid="ignore"):
            s = -origin[2] / directions[2]
            x, y = origin[0] + s * directions[0], origin[1] + s * directions[1]
            hit = (s > NEAREST_M) & (abs(x) <= self.width_m / 2) & (abs(y) <= self.height_m / 2)
        return np.where(hit, s, np.inf).astype(directions.dtype)

    def surface(self, points: Rays) -> tuple[Rays, Rays]:
        """See ``Shape``."""
        normals = np.zeros_like(points)
        normals[2] = -1
        return points[:2], normals


@dataclass(frozen=True)
class Sphere:
    """The points at ``radius_m`` from the origin, seen from outside."""

    radius_m: float

    def intersect(self, origin: Float64Array, directions: Rays) -> Rays:
        """See ``Shape``."""
        a = np.einsum("in,in->n", directions, directions)
        half_b = origin.astype(directions.dtype) @ directions
        discriminant = half_b**2 - a * (origin @ origin - self.radius_m**2)
        s = (-half_b - np.sqrt(np.maximum(discriminant, 0))) / a
        return np.where((discriminant > 0) & (s > NEAREST_M), s, np.inf).astype(directions.dtype)

    def surface(self, points: Rays) -> tuple[Rays, Rays]:
        """See ``Shape``; the seam of the longitude lies at +z."""
        normals = points / np.linalg.norm(points, axis=0)
        longitude = np.arctan2(normals[0], -normals[2])
        latitude = np.arcsin(np.clip(normals[1], -1, 1))
        return np.stack([longitude, latitude]) * self.radius_m, normals


@dataclass(frozen=True)
class Box:
    """The surface of an axis-aligned box round the origin, seen from outside."""

    size_m: Vector

    def intersect(self, origin: Float64Array, directions: Rays) -> Rays:
        """See ``Shape``."""
        half = np.array(self.size_m) / 2
        near = np.full(directions.shape[1], -np.inf, directions.dtype)
        far = -near
        # A ray inside a face's plane divides 0 by 0; the NaN fails the comparison below and counts as a miss.
        with np.errstate(divide="ignore", invalid="ignore"):
            for axis in range(3):
                first = (-half[axis] - origin[axis]) / directions[axis]
                second = (half[axis] - origin[axis]) / directions[axis]
                near = np.maximum(near, np.minimum(first, second))
                far = np.minimum(far, np.maximum(first, second))
            return np.where((near > NEAREST_M) & (near < far), near, np.inf).astype(directions.dtype)

    def surface(self, points: Rays) -> tuple[Rays, Rays]:
        """See ``Shape``; each face is shifted so that opposite faces differ."""
        relative = points / (np.array(self.size_m)[:, None] / 2)
        face = np.argmax(abs(relative), axis=0)
        columns = np.arange(points.shape[1])
        side = np.sign(relative[face, columns])
        normals = np.zeros_like(points)
        normals[face, columns] = side
        offset = 1.7 * face + 0.6 * side
        u = np.where(face == 0, points[2], points[0]) + offset
        v = np.where(face == 1, points[2], points[1]) + offset
        return np.stack([u, v]), normals


@dataclass(frozen=True)
class Surface:
    """How a thing looks: a texture between two colours (RGB, 0 to 255), at so many texels a metre."""

    dark_rgb: Vector
    light_rgb: Vector
    texels_per_m: float = 80.0
    variant: int = 0


def rotation_matrix(yaw_degrees: float, pitch_degrees: float = 0.0, roll_degrees: float = 0.0) -> Float64Array:
    """R = Ry(yaw) Rx(pitch) Rz(roll); positive yaw turns +z towards +x, positive pitch turns +z towards -y."""
    yaw, pitch, roll = np.radians([yaw_degrees, pitch_degrees, roll_degrees])
    ry = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    rx = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    rz = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return np.asarray(ry @ rx @ rz, np.float64)


def _rigid(rotation: Float64Array, translation: Float64Array) -> Float64Array:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose


@dataclass(frozen=True)
class Thing:
    """A shape with a place, a look, a role and, for movers, a velocity and a spin about its y axis."""

    name: str
    shape: Shape
    position_m: Vector
    surface: Surface
    role: Role = Role.STATIC
    yaw_degrees: float = 0.0
    pitch_degrees: float = 0.0
    velocity_mps: Vector = (0.0, 0.0, 0.0)
    spin_degrees_per_second: float = 0.0

    def world_from_thing(self, time_seconds: float) -> Float64Array:
        """(4, 4) float64 at a time within the take."""
        position = np.array(self.position_m) + time_seconds * np.array(self.velocity_mps)
        yaw = self.yaw_degrees + time_seconds * self.spin_degrees_per_second
        return _rigid(rotation_matrix(yaw, self.pitch_degrees), position)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: straight motion, a hand-held sway on top, turning and zooming at constant rates."""

    position_m: Vector = (0.0, 0.0, 0.0)
    velocity_mps: Vector = (0.0, 0.0, 0.0)
    sway_m: Vector = (0.0, 0.0, 0.0)
    sway_hz: float = 0.7
    yaw_degrees: float = 0.0
    yaw_degrees_per_second: float = 0.0
    pitch_degrees: float = 0.0
    horizontal_fov_degrees: float = 62.0
    zoom_per_second: float = 0.0

    def world_from_cam(self, time_seconds: float) -> Float64Array:
        """(4, 4) float64 at a time within the take."""
        phase = 2 * np.pi * self.sway_hz * time_seconds
        sway = np.array(self.sway_m) * np.sin(phase * np.array([1.0, 1.6, 0.7]))
        position = np.array(self.position_m) + time_seconds * np.array(self.velocity_mps) + sway
        yaw = self.yaw_degrees + time_seconds * self.yaw_degrees_per_second
        return _rigid(rotation_matrix(yaw, self.pitch_degrees), position)

    def intrinsics(self, time_seconds: float, wh: tuple[int, int]) -> Intrinsics:
        """f = W / 2 / tan(fov / 2) * exp(zoom * t), principal point in the middle."""
        width, height = wh
        focal = width / 2 / np.tan(np.radians(self.horizontal_fov_degrees) / 2)
        focal = float(focal * np.exp(self.zoom_per_second * time_seconds))
        return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)


@dataclass(frozen=True)
class Take:
    """One shot: things, a camera, and the colours of the sky (horizon, zenith) behind them."""

    things: tuple[Thing, ...]
    camera: Camera
    sky_rgb: tuple[Vector, Vector] = field(default=((205.0, 215.0, 228.0), (92.0, 140.0, 205.0)))


@dataclass(frozen=True)
class Scene:
    """One or more takes, shown one after the other with a cut between them.

    Raises ShapeError for a scene without a take.
    """

    name: str
    takes: tuple[Take, ...]
    frame_rate: float = 30.0

    def __post_init__(self) -> None:
        if not self.takes:
            raise ShapeError("a scene needs at least one take", got=self.name)
