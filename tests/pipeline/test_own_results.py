"""What a run says is known, a run on its result knows too, whichever way it was exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stf_depth.errors import InputError
from stf_depth.export.formats import export_result
from stf_depth.perception.registry import create
from stf_depth.types import BoolArray, DepthMaps, Float32Array, Uint8Array
from stf_depth.visualization.range import closeness

SKY = (slice(None), slice(0, 24))
GROUND = (slice(None), slice(24, 40))
HOLE = (slice(None), slice(40, 48), slice(0, 8))


def run(bench: Any, video: Path, depth: Any, name: str, **options: Any) -> Any:
    return replace(bench, depth=depth, semantic=None).run(video, name, **options).result


def content(result: Any) -> tuple[Float32Array, BoolArray]:
    return np.asarray(result.depth[:]), np.asarray(result.valid[:])


def precomputed(path: Path, options: str = "") -> Any:
    return create("depth", f"precomputed:{path}" + f"?{options}" * bool(options))


@pytest.fixture
def brightness(rng: np.random.Generator) -> Float32Array:
    return rng.uniform(-1, 1, (40, 64, 96)).astype(np.float32)


@pytest.mark.parametrize("mode", ["none", "flow"])
def test_affine_disparity_below_zero_is_kept(
    mode: str, bench: Any, long_video: Path, brightness: Float32Array, tmp_path: Path
) -> None:
    np.savez(tmp_path / "d.npz", depth=brightness, representation="disparity", ambiguity="affine")
    depth, valid = content(run(bench, long_video, precomputed(tmp_path / "d.npz"), "first", **{"fusion.mode": mode}))
    assert valid.all() and np.isfinite(depth).all()
    # Its order is that of the input, below zero too.
    assert np.corrcoef(depth[brightness < 0], brightness[brightness < 0])[0, 1] > 0.8


@pytest.fixture(scope="module")
def with_sky() -> dict[str, Any]:
    """z of a ground that recedes under a sky, which is infinitely far, with a hole where nothing is known."""
    z = np.broadcast_to(2 + 100 / np.maximum(np.arange(64, dtype=np.float32)[:, None] - 20, 1), (40, 64, 96)).copy()
    z[SKY] = np.inf
    valid = np.ones(z.shape, bool)
    valid[HOLE] = False
    return {"depth": z, "valid": valid, "representation": "z_depth", "ambiguity": "metric"}


@pytest.mark.parametrize("mode", ["none", "flow"])
@pytest.mark.parametrize("form", ["result", "npz", "exr", "png16", "npz disparity"])
def test_a_result_fed_back_in_keeps_its_pixels_and_its_sky(
    form: str, mode: str, bench: Any, long_video: Path, with_sky: dict[str, Any], tmp_path: Path
) -> None:
    arrays = dict(with_sky)
    if form.endswith("disparity"):
        arrays |= {"depth": 1 / arrays["depth"], "representation": "disparity"}
    np.savez(tmp_path / "d.npz", **arrays)
    options = {"fusion.mode": mode, "fusion.sky": False}
    first = run(bench, long_video, precomputed(tmp_path / "d.npz"), "first", **options)
    path = first.folder
    if form != "result":
        files = export_result(first, form.split()[0], tmp_path / "exported")[form.split()[0]]
        path = files[0] if form.startswith("npz") else files[0].parent
    second = run(bench, long_video, precomputed(path), "second", **options)
    (before, known), (after, again) = content(first), content(second)
    assert known[SKY].all() and not known[HOLE].any()
    np.testing.assert_array_equal(again, known)
    for depth in (before, after):
        close = closeness(depth, first.representation)
        assert close[SKY].max() < 0.5 * close[GROUND].min()


def test_most_of_the_picture_may_be_infinitely_far() -> None:
    from stf_depth.fusion.inputs import ShotInputs
    from stf_depth.fusion.prelook import look_ahead

    rgb: Uint8Array = np.zeros((3, 16, 16, 3), np.uint8)
    disparity = np.zeros((3, 16, 16), np.float32)
    disparity[:, 12:] = 0.5
    maps = DepthMaps.of(disparity, "disparity", "scale", valid=np.ones(disparity.shape, bool))
    inputs = ShotInputs(rgb, maps.depth, maps.valid, maps.ambiguity)
    assert look_ahead(inputs, use_structure=False).logmap.floor == pytest.approx(0.005)


def test_a_result_with_a_missing_file_is_no_depth(
    bench: Any, long_video: Path, brightness: Float32Array, tmp_path: Path
) -> None:
    np.savez(tmp_path / "d.npz", depth=brightness, representation="disparity", ambiguity="affine")
    result = run(bench, long_video, precomputed(tmp_path / "d.npz"), "first", **{"fusion.mode": "none"})
    (result.folder / "depth.zarr" / "depth" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(InputError, match="damaged Zarr store"):
        precomputed(result.folder).read([0])
