"""Class names of every label set -> the five roles that fusion knows.

| role | what belongs to it |
|---|---|
| sky | sky |
| ground | what one walks, drives or floats on: floors, roads, soil, water surfaces |
| planar | flat by nature and not underfoot: walls, ceilings, doors, windows, pictures, signs |
| static | everything else that stays where it is |
| mover | people, animals, vehicles, what they carry, and what moves in place (fountain, flag, fan) |

A name that no label set has is UNKNOWN: fusion then uses the segment's border and nothing else, because a wrong
role (a mover taken for static) does more harm than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from stf_depth.errors import CheckpointError
from stf_depth.types import Role, SegmentInfo

__all__ = ["LABEL_SETS", "class_table", "label_set", "role_of_name"]

LABEL_SETS = ("coco", "ade20k", "cityscapes", "voc", "ade20k_32")

# Names that published checkpoints use for a class of the lists.
ALIASES = {
    "window": "windowpane",
    "tub": "bathtub",
    "rail": "railing",
    "street lamp": "streetlight",
    "plane": "airplane",
    "clothes": "apparel",
    "pool": "swimming pool",
    "falls": "waterfall",
    "trash can": "ashcan",
    "tvmonitor": "tv",
    "tv/monitor": "tvmonitor",
    "dining table": "diningtable",
    "potted plant": "pottedplant",
    "motorbike": "motorcycle",
    "__background__": "background",
}
BACKGROUND_NAMES = ("background", "other", "void", "unlabeled", "unlabelled")


@cache
def label_set(name: str) -> tuple[SegmentInfo, ...]:
    """The classes of a label set in the order of their numbers."""
    text = (resources.files("stf_depth.perception") / "label_sets" / f"{name}.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return tuple(SegmentInfo(label, Role[role.upper()], kind == "thing") for label, role, kind in rows)


@cache
def _by_name(name: str) -> dict[str, SegmentInfo]:
    return {info.name: info for info in label_set(name)}


def role_of_name(label: str, first: str = "coco") -> SegmentInfo:
    """What a class name means, looked up in the label set ``first`` and then in the others; UNKNOWN when in none.

    Upper case, surrounding spaces and synonyms after a comma or semicolon are ignored.
    """
    plain = label.replace(";", ",").split(",")[0].strip().lower().replace("_", " ")
    spellings = (label, plain, ALIASES.get(label, plain), ALIASES.get(plain, plain), plain.replace(" ", "-"))
    for name in (first, *LABEL_SETS):
        for spelling in spellings:
            found = _by_name(name).get(spelling)
            if found is not None:
                return SegmentInfo(label.strip(), found.role, found.is_thing)
    return SegmentInfo(label.strip(), Role.UNKNOWN)


def class_table(names: Sequence[str]) -> tuple[dict[int, SegmentInfo], int]:
    """Table from segment id to meaning for the classes of a network, and the id of class 0.

    Id 0 stays unlabelled: class c has id c where class 0 is a background, and c + 1 otherwise. Whether a class is a
    thing is taken from the label set that shares most names with ``names``.
    """
    best = max(LABEL_SETS, key=lambda name: sum(label in _by_name(name) for label in names))
    infos = [role_of_name(name, best) for name in names]
    has_background = bool(names) and names[0].strip(" _").lower() in BACKGROUND_NAMES
    first_id = 0 if has_background else 1
    return {number + first_id: info for number, info in enumerate(infos) if number + first_id > 0}, first_id


def checkpoint_names(id2label: Mapping[object, str] | None, count: int, where: object) -> list[str]:
    """Class names of a checkpoint: its own, else the label set with as many classes.

    Raises CheckpointError when neither tells.
    """
    names = [str(label) for _, label in sorted((int(str(key)), label) for key, label in (id2label or {}).items())]
    if len(names) == count and not all(name.startswith("LABEL_") for name in names):
        return names
    for name in LABEL_SETS:
        if len(label_set(name)) == count:
            return [info.name for info in label_set(name)]
    expected = "id2label in config.json with the names of the classes"
    raise CheckpointError("the checkpoint does not name its classes", where=where, expected=expected, got=len(names))
