from __future__ import annotations

import pytest

from stf_depth.errors import CheckpointError
from stf_depth.perception.roles import LABEL_SETS, checkpoint_names, class_table, label_set, role_of_name
from stf_depth.types import Role

SIZES = {"coco": (133, 80), "ade20k": (150, 100), "cityscapes": (19, 8), "voc": (21, 20), "ade20k_32": (32, 14)}


@pytest.mark.parametrize("name", LABEL_SETS)
def test_sizes_and_completeness(name: str) -> None:
    infos = label_set(name)
    assert (len(infos), sum(info.is_thing for info in infos)) == SIZES[name]
    assert len({info.name for info in infos}) == len(infos)
    unknown = [info.name for info in infos if info.role is Role.UNKNOWN]
    assert unknown == {"voc": ["background"], "ade20k_32": ["other"]}.get(name, [])


def test_voc_and_coco_names_are_those_of_torchvision() -> None:
    from torchvision.models._meta import _COCO_CATEGORIES, _VOC_CATEGORIES

    things = [name for name in _COCO_CATEGORIES if name not in ("__background__", "N/A")]
    assert [info.name for info in label_set("coco")][:80] == things
    assert [info.name for info in label_set("voc")][1:] == _VOC_CATEGORIES[1:]


def test_the_32_classes_are_the_first_of_ade20k() -> None:
    assert label_set("ade20k_32")[1:] == label_set("ade20k")[:31]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("person", Role.MOVER),
        ("rider", Role.MOVER),
        ("aeroplane", Role.MOVER),
        ("sky", Role.SKY),
        ("sky-other-merged", Role.SKY),
        ("road, route", Role.GROUND),
        ("pavement-merged", Role.GROUND),
        ("Floor ", Role.GROUND),
        ("wall", Role.PLANAR),
        ("window", Role.PLANAR),
        ("windowpane, window", Role.PLANAR),
        ("building", Role.STATIC),
        ("street lamp", Role.STATIC),
        ("diningtable", Role.STATIC),
        ("plane", Role.MOVER),
        ("tv/monitor", Role.STATIC),
        ("dragon", Role.UNKNOWN),
        ("", Role.UNKNOWN),
    ],
)
def test_role_of_name(name: str, role: Role) -> None:
    assert role_of_name(name).role is role


@pytest.mark.parametrize("name", LABEL_SETS)
def test_one_name_has_one_role_in_every_set(name: str) -> None:
    for info in label_set(name):
        assert {found.role for other in LABEL_SETS for found in label_set(other) if found.name == info.name} == {
            info.role
        }


@pytest.mark.parametrize(("name", "expected"), [("cityscapes", False), ("ade20k", True), ("coco", True)])
def test_things_follow_the_closest_label_set(name: str, expected: bool) -> None:
    table, _ = class_table([info.name for info in label_set(name)])
    assert next(info.is_thing for info in table.values() if info.name == "traffic light") is expected


def test_id_zero_stays_unlabelled() -> None:
    with_background, first = class_table(["background", "person"])
    assert first == 0 and set(with_background) == {1} and with_background[1].name == "person"
    without, first = class_table(["wall", "person"])
    assert first == 1 and set(without) == {1, 2}


def test_checkpoint_names() -> None:
    assert checkpoint_names({"1": "b", "0": "a"}, 2, "x") == ["a", "b"]
    unnamed = {str(number): f"LABEL_{number}" for number in range(19)}
    assert checkpoint_names(unnamed, 19, "x")[0] == "road"
    with pytest.raises(CheckpointError, match="does not name"):
        checkpoint_names({"0": "LABEL_0"}, 1, "x")
