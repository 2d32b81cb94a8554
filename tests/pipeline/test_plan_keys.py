"""Whatever changes a stage's output changes its key; where files lie does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stf_depth.config import preset
from stf_depth.perception.base import BackendInfo, DepthFromGeometry, Licence
from stf_depth.perception.registry import create
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.plan import VideoFolders, VideoPlan

Keys = Mapping[str, str]


class Described:
    """A backend of which nothing but its description matters."""

    def __init__(self, info: BackendInfo) -> None:
        self.info = info


def described(task: str, **values: Any) -> Any:
    return Described(replace(BackendInfo(task, task, Licence("none", True), "", "digest"), **values))


def keys(backends: Backends, **options: Any) -> Keys:
    config = preset("offline").with_values({"geometry.enabled": False, **options})
    return VideoPlan("input", config, backends, VideoFolders(Path("working"), Path("output"))).keys


@pytest.fixture
def backends() -> Backends:
    return Backends(*(described(task, options={"size": 1}) for task in ("depth", "semantic", "panoptic", "flow")))


CHANGES = {
    "weights": {"weights_digest": "other"},
    "an option": {"options": {"size": 2}},
    "an option more": {"options": {"size": 1, "more": 0}},
    "the version": {"version": 2},
    "the meaning": {"ambiguity": "metric"},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("task", ["depth", "semantic", "panoptic", "flow"])
def test_what_a_network_is_counts_for_its_stage(task: str, change: str, backends: Backends) -> None:
    before = keys(backends)
    after = keys(replace(backends, **{task: described(task, **{"options": {"size": 1}, **CHANGES[change]})}))
    changed = {stage for stage in before if after[stage] != before[stage]}
    assert changed == {"fusion" if task == "flow" else task, "fusion"}


def test_precision_counts_for_every_network_and_for_the_flow_of_fusion(backends: Backends) -> None:
    still = replace(backends, depth=DepthFromGeometry(backends.depth.info), semantic=None, panoptic=None)
    for used, expected in ((backends, {"depth", "semantic", "panoptic", "fusion"}), (still, {"fusion"})):
        before, after = keys(used), keys(used, precision="bfloat16")
        assert {stage for stage in before if after[stage] != before[stage]} == expected


def test_another_registered_network_counts(backends: Backends) -> None:
    assert keys(backends, depth="dpt-large")["depth"] != keys(backends, depth="dpt-hybrid")["depth"]


@pytest.fixture
def maps(tmp_path: Path) -> Callable[[str, str], Keys]:
    """Keys of a run on precomputed depth in a folder, with options."""
    flow = create("flow", "dis")
    assert flow is not None

    def keys_of(folder: str, options: str) -> Keys:
        (tmp_path / folder).mkdir(exist_ok=True)
        np.save(tmp_path / folder / "depth.npy", np.ones((3, 4, 5), np.float32))
        spec = f"precomputed:{tmp_path / folder / 'depth.npy'}?{options}"
        depth = create("depth", spec)
        assert depth is not None
        return keys(Backends(depth, None, None, flow), depth=spec)

    return keys_of


def test_a_default_is_the_same_as_the_option_that_states_it(maps: Callable[[str, str], Keys]) -> None:
    meaning = "representation=z_depth&ambiguity=metric"
    assert maps("a", meaning) == maps("a", f"{meaning}&offset=0")
    assert maps("a", meaning)["depth"] != maps("a", f"{meaning}&unit_m=0.1")["depth"]


def test_maps_may_move(maps: Callable[[str, str], Keys]) -> None:
    meaning = "representation=z_depth&ambiguity=metric"
    assert maps("a", meaning) == maps("b", meaning)
