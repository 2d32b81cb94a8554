"""The named scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stf_depth.errors import UsageError
from stf_depth.synthetic.render import SyntheticClip, render_clip
from stf_depth.synthetic.scenes import Box, Camera, Rectangle, Scene, Sphere, Surface, Take, Thing
from stf_depth.types import Role

__all__ = ["SCENES", "demo_clip", "scene"]

WOOD = Surface((78, 46, 24), (212, 164, 108), 90, 0)
PLASTER = Surface((128, 118, 108), (232, 226, 212), 60, 1)
BLUE_PAPER = Surface((62, 84, 112), (188, 204, 222), 60, 2)
GREEN_PAPER = Surface((66, 92, 70), (190, 208, 178), 60, 3)
RED = Surface((110, 22, 18), (244, 118, 82), 110, 1)
TEAL = Surface((10, 74, 84), (112, 214, 206), 110, 2)
YELLOW = Surface((122, 84, 8), (252, 220, 108), 110, 3)
VIOLET = Surface((58, 34, 92), (190, 150, 232), 110, 0)
ASPHALT = Surface((48, 48, 52), (142, 140, 136), 40, 1)
BRICK = Surface((92, 42, 30), (208, 134, 104), 22, 0)
CONCRETE = Surface((104, 104, 100), (214, 210, 200), 22, 2)
SANDSTONE = Surface((126, 100, 64), (234, 212, 166), 22, 3)
GRASS = Surface((26, 58, 18), (128, 172, 74), 40, 3)


def _room_things() -> tuple[Thing, ...]:
    return (
        Thing("floor", Rectangle(9, 12), (0, 1.3, 3), WOOD, Role.GROUND, pitch_degrees=90),
        Thing("ceiling", Rectangle(9, 12), (0, -1.5, 3), PLASTER, Role.PLANAR, pitch_degrees=90),
        Thing("back wall", Rectangle(9, 2.8), (0, -0.1, 5.2), BLUE_PAPER, Role.PLANAR),
        Thing("left wall", Rectangle(12, 2.8), (-2.8, -0.1, 3), GREEN_PAPER, Role.PLANAR, yaw_degrees=90),
        Thing("right wall", Rectangle(12, 2.8), (2.9, -0.1, 3), PLASTER, Role.PLANAR, yaw_degrees=90),
        Thing("table", Box((1.5, 0.08, 0.8)), (0.1, 0.45, 3.0), RED, yaw_degrees=14),
        Thing("table leg", Box((0.12, 0.8, 0.12)), (0.1, 0.88, 3.0), VIOLET),
        Thing("ball", Sphere(0.24), (0.35, 0.17, 2.95), YELLOW),
        Thing("crate", Box((0.6, 0.7, 0.5)), (-1.35, 0.95, 3.6), TEAL, yaw_degrees=-28),
        Thing("globe", Sphere(0.42), (1.75, 0.88, 4.1), VIOLET),
        Thing("post", Box((0.09, 2.8, 0.09)), (-0.75, -0.1, 2.1), RED, yaw_degrees=45),
    )


def _room() -> Scene:
    camera = Camera((-0.55, 0, 0), (1.0, 0, 0.25), (0.02, 0.03, 0.03), yaw_degrees=7, yaw_degrees_per_second=-9)
    return Scene("room", (Take(_room_things(), camera),))


def _street_buildings() -> tuple[Thing, ...]:
    return (
        Thing("road", Rectangle(9, 160), (0, 1.6, 60), ASPHALT, Role.GROUND, pitch_degrees=90),
        Thing("left lawn", Rectangle(40, 160), (-24.5, 1.59, 60), GRASS, Role.GROUND, pitch_degrees=90),
        Thing("right lawn", Rectangle(40, 160), (24.5, 1.59, 60), GRASS, Role.GROUND, pitch_degrees=90),
        Thing("brick house", Box((6, 8, 10)), (-9.5, -2.4, 17), BRICK, Role.PLANAR),
        Thing("sandstone house", Box((6, 5, 9)), (-9.5, -0.9, 31), SANDSTONE, Role.PLANAR),
        Thing("concrete house", Box((6, 6.5, 12)), (9.5, -1.65, 15), CONCRETE, Role.PLANAR),
        Thing("far house", Box((6, 9, 12)), (10, -2.9, 34), BRICK, Role.PLANAR),
        Thing("lamp post", Box((0.16, 4.4, 0.16)), (-4.2, -0.6, 9), CONCRETE),
        Thing("second post", Box((0.16, 4.4, 0.16)), (4.3, -0.6, 13), CONCRETE),
        Thing("bush", Sphere(1.1), (-5.6, 0.9, 8), replace(GRASS, texels_per_m=70)),
    )


def _street_movers() -> tuple[Thing, ...]:
    return (
        Thing("car", Box((1.7, 1.3, 3.6)), (1.9, 0.95, 14), RED, Role.MOVER, velocity_mps=(0, 0, -3.5)),
        Thing("van", Box((1.9, 1.9, 4.4)), (-2.0, 0.65, 11), TEAL, Role.MOVER, velocity_mps=(0, 0, 3.0)),
        Thing("ball", Sphere(0.45), (-3.2, 1.15, 7.5), YELLOW, Role.MOVER, velocity_mps=(1.6, 0, 0)),
    )


def _street() -> Scene:
    camera = Camera((0, 0, 0), (0.8, 0, 0.8), (0.02, 0.03, 0.02), yaw_degrees=-3)
    return Scene("street", (Take(_street_buildings() + _street_movers(), camera),))


def _static_camera_movers() -> Scene:
    movers = (
        Thing("walker", Box((0.4, 1.3, 0.3)), (-1.3, 0.64, 2.6), TEAL, Role.MOVER, velocity_mps=(1.1, 0, 0)),
        Thing(
            "roller",
            Sphere(0.3),
            (1.5, 0.99, 2.2),
            YELLOW,
            Role.MOVER,
            velocity_mps=(-0.8, 0, 0.5),
            spin_degrees_per_second=80,
        ),
    )
    return Scene("static_camera_movers", (Take(_room_things() + movers, Camera()),))


def _forward() -> Scene:
    camera = Camera((0, 0, 0), (0, 0, 5.0), (0.02, 0.03, 0.0))
    return Scene("forward", (Take(_street_buildings(), camera),))


def _rotation() -> Scene:
    camera = Camera(yaw_degrees=-10, yaw_degrees_per_second=18)
    return Scene("rotation", (Take(_room_things(), camera),))


def _zoom() -> Scene:
    return Scene("zoom", (Take(_room_things(), Camera(zoom_per_second=0.35)),))


def _two_shots() -> Scene:
    return Scene("two_shots", _room().takes + _street().takes)


SCENES: dict[str, Callable[[], Scene]] = {
    "room": _room,  # hand-held walk past furniture: parallax, everything static
    "street": _street,  # sky, houses, cars and a ball on the move
    "static_camera_movers": _static_camera_movers,  # no parallax, two movers
    "forward": _forward,  # driving straight ahead
    "rotation": _rotation,  # turning on the spot
    "zoom": _zoom,  # only the focal length changes
    "two_shots": _two_shots,  # room, cut, street
}


def scene(name: str) -> Scene:
    """The named scene.

    Raises UsageError for an unknown name.

    >>> from stf_depth.synthetic import scene
    >>> len(scene("two_shots").takes)
    2
    """
    if name not in SCENES:
        raise UsageError(f"unknown synthetic scene '{name}'", hint=f"Known scenes: {', '.join(SCENES)}")
    return SCENES[name]()


def demo_clip(frames: int = 40, wh: tuple[int, int] = (384, 216)) -> SyntheticClip:
    """A walk through the room with parallax in every frame, for the demo."""
    return render_clip(scene("room"), frames, wh, noise_sigma=1.2)
