"""Near and far told apart where few frames show little perspective.

Seen by nearly parallel rays, a scene and its mirror image in depth that turns the other way give the same pictures:
only perspective tells them apart (the Necker reversal of structure from motion). The mapper may settle in the wrong
one, with an odd focal length making up for the rest. So both are adjusted, and the one that the tracks fit better is
kept.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pycolmap

from stf_depth.geometry.mapping import adjusted, mean_error_px
from stf_depth.types import Float64Array

__all__ = ["mirrored", "near_side_near"]

_STEPS = 100
_MOST_VIEWS = 32  # more key frames have moved on by a picture's width, and perspective decides
_CLEARLY = 0.98  # of the error of the map as it was found: the mirrored start often ends in the same map
_NEAREST = 0.1  # of the median depth: what would come to lie behind the camera
_FLIP = np.diag([1.0, 1.0, -1.0])


def near_side_near(map_: Any, focal_px: float, *, focal_known: bool) -> Any:
    """``map_``, or what its mirror image in depth adjusts to where that has the lower mean reprojection error.

    focal_px: the known focal length, or a usual one, which the mirrored map is tried at beside a free one.
    """
    if map_.num_reg_images() > _MOST_VIEWS:
        return map_
    other_side = mirrored(map_)
    others = [adjusted(other_side, focal_px, refine_focal=False, steps=_STEPS)]
    if not focal_known:
        others.append(adjusted(other_side, None, refine_focal=True, steps=_STEPS))
    best = min(others, key=mean_error_px)
    return best if mean_error_px(best) < _CLEARLY * mean_error_px(map_) else map_


def mirrored(map_: Any) -> Any:
    """Depths z of the middle camera become 2 z0 - z, z0 their median, and the other cameras turn the other way."""
    other = copy.deepcopy(map_)
    images = sorted(map_.reg_image_ids())
    middle = map_.images[images[len(images) // 2]].cam_from_world()
    points = {key: np.asarray(middle * point.xyz) for key, point in map_.points3D.items()}
    depth = float(np.median([point[2] for point in points.values()]))
    centre = np.array([0.0, 0.0, depth])
    for key, point in points.items():
        there = centre + _FLIP @ (point - centre)
        other.points3D[key].xyz = np.array([there[0], there[1], max(there[2], _NEAREST * depth)])
    for image in images:
        turned = _turned(map_.images[image].cam_from_world() * middle.inverse(), centre)
        other.frames[other.images[image].frame_id].rig_from_world = turned
    return other


def _turned(cam_from_middle: Any, centre: Float64Array) -> Any:
    """The pose that sees the mirrored scene where ``cam_from_middle`` saw the scene: R' = S R S about the centre."""
    rotation = cam_from_middle.rotation.matrix()
    shift = cam_from_middle.translation - centre + rotation @ centre
    mirrored = _FLIP @ rotation @ _FLIP
    return pycolmap.Rigid3d(pycolmap.Rotation3d(mirrored), shift + centre - mirrored @ centre)
