"""Configurations reject what they do not know and say what was meant."""

from __future__ import annotations

import pytest

from stf_depth.cli.run import assignments
from stf_depth.config import PRESETS, RunConfig, preset
from stf_depth.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_resolve_to_registered_backends(name: str) -> None:
    from stf_depth.perception.registry import describe

    config = preset(name)
    for task in ("depth", "semantic", "panoptic", "flow"):
        spec = getattr(config, task)
        info = describe(task, spec)  # type: ignore[arg-type]
        assert (info is None) == (spec == "none")


def test_default_presets_are_free_for_commercial_use_where_they_promise() -> None:
    from stf_depth.perception.registry import describe

    for name in ("fast", "best"):
        info = describe("depth", preset(name).depth)
        assert info is not None
        assert info.licence.commercial is True


def test_unknown_preset_and_field_name_the_closest() -> None:
    with pytest.raises(ConfigError, match="offline"):
        preset("offlin")
    with pytest.raises(ConfigError, match="Did you mean 'depth'"):
        preset("offline", dept="motion")


@pytest.mark.parametrize(
    ("key", "meant"), [("fusion.mod", "mode"), ("fuson.mode", "fusion"), ("video.max_frame", "max_frames")]
)
def test_unknown_dotted_option_names_the_closest(key: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'"):
        preset("offline").with_values({key: 1})


@pytest.mark.parametrize(
    "values", [{"video.max_frames": 0}, {"video.start_seconds": -1}, {"fusion.mode": "best"}, {"device": "tpu"}]
)
def test_bad_values_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        preset("offline").with_values(values)


def test_text_values_from_the_command_line_are_understood() -> None:
    config = preset("offline").with_values({"video.max_frames": "7", "geometry.enabled": "false"})
    assert config.video.max_frames == 7
    assert config.geometry.enabled is False


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("alignment.spans=[1, 2, 4]", (1, 2, 4)),
        ("alignment.spans=1,2,4", (1, 2, 4)),
        ("alignment.spans=3", (3,)),
        ("fusion.pose_offsets=[[1, 2], [6]]", ((1, 2), (6,))),
        ("fusion.pose_offsets=[]", ()),
        ("geometry.source_baselines=0.1,0.2", (0.1, 0.2)),
        ("video.output_wh=[640,360]", (640, 360)),
        ("video.output_wh=640,360", (640, 360)),
        ("video.output_wh=null", None),
        ("geometry.focal_px=null", None),
        ("geometry.focal_px=1e3", 1000.0),
        ("video.allow_gaps=true", True),
        ("depth=1e3", "1e3"),
        ("depth=true", "true"),
        ("depth=onnx:/a/[b].onnx", "onnx:/a/[b].onnx"),
        ("depth=[b].onnx", "[b].onnx"),
        ("panoptic=none", "none"),
    ],
)
def test_any_option_can_be_set_from_the_command_line(pair: str, value: object) -> None:
    changed = {"video.output_wh": (2, 2), "geometry.focal_px": 7.0}
    config: object = preset("offline").with_values(changed).with_values(assignments([pair]))
    for name in pair.partition("=")[0].split("."):
        config = getattr(config, name)
    assert config == value


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("video.output_wh", (0, 0)),
        ("video.output_wh", (-5, 3)),
        ("video.output_wh", "640"),
        ("alignment.spans", ()),
        ("alignment.spans", (0,)),
        ("alignment.spans", "1,x"),
        ("alignment.spans", ""),
        ("geometry.fusion_offsets", ()),
        ("geometry.fusion_offsets", (-3,)),
        ("geometry.coarse_offsets", ()),
        ("geometry.source_baselines", (0.0,)),
        ("geometry.source_baselines", ()),
        ("geometry.fusion_widths", (0.0,)),
        ("fusion.structure_cells", (0,)),
        ("fusion.pose_offsets", ((),)),
        ("fusion.pose_offsets", ((0,),)),
        ("fusion.pose_offsets", "1,2"),
    ],
)
def test_lists_are_bounded_in_length_and_elements(key: str, bad: object) -> None:
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        preset("offline").with_values({key: bad})


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().depth = "x"  # type: ignore[misc]
