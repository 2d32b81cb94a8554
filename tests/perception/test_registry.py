from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stf_depth.config import PRESETS
from stf_depth.errors import CheckpointError, ConfigError, LicenceError, SpecError
from stf_depth.perception.base import DepthFromGeometry, FlowBackend
from stf_depth.perception.registry import create, describe, find_entry, models_table
from stf_depth.perception.table import TABLE
from stf_depth.types import Ambiguity, Representation

TASKS = ("depth", "semantic", "panoptic", "flow")


def test_every_name_that_a_preset_uses_is_registered() -> None:
    for values in PRESETS.values():
        for task in TASKS:
            name = values.get(task, "none")
            assert name == "none" or name in TABLE[task]  # type: ignore[index]


def test_seed_preset_is_the_original_interface() -> None:
    entry = find_entry("depth", PRESETS["seed"]["depth"])
    assert entry.weights == "Intel/dpt-large"
    assert (entry.representation, entry.ambiguity) == (Representation.DISPARITY, Ambiguity.AFFINE)


@pytest.mark.parametrize("name", ["fast", "best", "seed", "offline"])
def test_presets_allow_commercial_use(name: str) -> None:
    for task in TASKS:
        entry = TABLE[task].get(PRESETS[name].get(task, ""))  # type: ignore[call-overload]
        assert entry is None or entry.licence.commercial is True


def test_every_depth_entry_states_its_meaning_and_every_entry_its_licence() -> None:
    for table in TABLE.values():
        for entry in table.values():
            assert entry.licence.name
            assert (entry.representation is not None) == (entry.ambiguity is not None) == (entry.task == "depth")


def test_models_table_lists_everything_without_network(no_network: Path) -> None:
    rows = models_table()
    assert len(rows) == sum(len(table) for table in TABLE.values())
    cached = {row.name for row in rows if row.cached}
    assert cached == {"motion", "regions", "dis"}
    assert {row.units for row in rows if row.task == "depth"} == {
        "disparity up to scale",
        "disparity up to scale and shift",
        "z-depth in metres",
    }


@pytest.mark.parametrize(
    ("name", "hint"),
    [("dpt-larg", "dpt-large"), ("depth-anything-small", "depth-anything-v2-small"), ("zoe", "zoedepth")],
)
def test_unknown_names_are_met_with_the_closest(name: str, hint: str) -> None:
    with pytest.raises(SpecError, match=f"Did you mean '{hint}'"):
        create("depth", name)


def test_a_name_of_another_task_says_so() -> None:
    with pytest.raises(SpecError, match="backend for flow, not for depth"):
        create("depth", "dis")


@pytest.mark.parametrize(
    ("task", "spec"),
    [("flow", "onnx:a.onnx"), ("flow", "precomputed:a"), ("flow", "hf:a/b")],
)
def test_kinds_that_a_task_does_not_have_are_refused(task: Any, spec: str) -> None:
    with pytest.raises(SpecError, match=r"no .* backend for flow"):
        create(task, spec)


@pytest.mark.parametrize(
    "spec", ["depth-anything-v2-large", "depth-pro", "hf:depth-anything/Depth-Anything-V2-Large-hf", "hf:some/model"]
)
def test_commercial_refuses_before_anything_is_fetched(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import stf_depth.perception.weights as weights

    def fail(*_args: object, **_options: object) -> None:
        raise AssertionError("looked for weights before the licence")

    monkeypatch.setattr(weights, "find_checkpoint", fail)
    monkeypatch.setattr(weights, "_download", fail)
    with pytest.raises(LicenceError, match="commercial"):
        create("depth", spec, commercial=True)


def test_a_licence_stated_by_the_user_is_taken(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("dpt-large")
    with pytest.raises(LicenceError, match="unknown"):
        create("depth", f"hf:{folder}", commercial=True)
    backend = create("depth", f"hf:{folder}?licence=MIT&commercial=yes", commercial=True)
    assert backend is not None and backend.info.licence.name == "MIT"


def test_weights_from_elsewhere_lose_the_registered_licence(checkpoint: Callable[[str], Path]) -> None:
    backend = create("depth", f"dpt-large?weights={checkpoint('dpt-large')}")
    assert backend is not None and backend.info.licence.commercial is None


def test_a_licence_stated_for_weights_from_elsewhere_is_taken(checkpoint: Callable[[str], Path]) -> None:
    own = f"dpt-large?weights={checkpoint('dpt-large')}"
    with pytest.raises(LicenceError, match="add &licence=NAME&commercial=yes"):
        create("depth", own, commercial=True)
    backend = create("depth", f"{own}&licence=MIT&commercial=yes", commercial=True)
    assert backend is not None and (backend.info.licence.name, backend.info.licence.commercial) == ("MIT", True)
    with pytest.raises(LicenceError, match="MIT, commercial use: no"):
        create("depth", f"{own}&licence=MIT", commercial=True)
    assert create("depth", f"{own}&licence=MIT") is not None


def test_a_registered_licence_cannot_be_restated(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(LicenceError):
        create("depth", "depth-anything-v2-large?licence=MIT&commercial=yes", commercial=True)


def test_none_is_no_backend() -> None:
    assert create("panoptic", "none") is None
    assert describe("panoptic", "none") is None


@pytest.mark.parametrize("task", ["depth", "flow"])
def test_depth_and_flow_cannot_be_left_out(task: Any) -> None:
    for make in (create, describe):
        with pytest.raises(SpecError, match=f"nothing can be done without {task}"):
            make(task, "none")


def test_motion_is_described_but_not_inferred() -> None:
    backend = create("depth", "motion", commercial=True)
    assert isinstance(backend, DepthFromGeometry) and not hasattr(backend, "infer")
    assert backend.info.ambiguity is Ambiguity.SCALE


def test_describe_needs_no_weights(no_network: Path) -> None:
    info = describe("depth", "dpt-large")
    assert info is not None and info.size_mb == 1368 and info.weights == "Intel/dpt-large"


def test_flow_backend_follows_the_protocol() -> None:
    assert isinstance(create("flow", "dis"), FlowBackend)


def test_unknown_options_name_the_closest(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'speed'"):
        create("flow", "dis?sped=fast")
    with pytest.raises(ConfigError, match="short_side"):
        create("depth", f"hf:{checkpoint('dpt-large')}?shortside=64")


@pytest.mark.parametrize(
    ("task", "name"),
    [("depth", "segformer"), ("panoptic", "segformer"), ("semantic", "dpt-large"), ("semantic", "oneformer")],
)
def test_checkpoint_of_another_task(task: Any, name: str, checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(CheckpointError, match=f"a {task} network"):
        create(task, f"hf:{checkpoint(name)}")


def test_checkpoint_of_another_network_of_the_same_task(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(CheckpointError, match="DPTForDepthEstimation"):
        create("depth", f"dpt-large?weights={checkpoint('depth-anything')}")


def test_the_registry_is_light() -> None:
    code = (
        "import sys, stf_depth.perception.registry as r; r.models_table(); r.describe('depth', 'dpt-large');"
        "heavy = {'torch', 'transformers', 'torchvision', 'onnxruntime'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
