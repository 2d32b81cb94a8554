"""The functions that the command calls, from files to tables."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

import stf_depth.evaluation as evaluation
from stf_depth.cache.store import DamagedChunkError
from stf_depth.errors import SequenceError, SpecError
from stf_depth.evaluation.clips import read_rgb
from stf_depth.evaluation.evaluate import SPAN_FRAMES, ScoreOptions, evaluate_sequence, score_prediction
from stf_depth.evaluation.metrics import score_clip
from stf_depth.evaluation.predictions import ArrayPrediction, open_prediction
from stf_depth.evaluation.selfcheck import evaluate_self
from stf_depth.evaluation.sequences import read_frame_map, read_sequence
from stf_depth.export import export_result
from stf_depth.result import DepthResult

if TYPE_CHECKING:
    from stf_depth.synthetic import SyntheticClip


@pytest.fixture(scope="module")
def long_sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More frames than a span holds, 24x16."""
    from stf_depth.synthetic import render_clip, scene, write_sequence

    clip = render_clip(scene("room"), frames=SPAN_FRAMES + 5, wh=(24, 16))
    return write_sequence(clip, tmp_path_factory.mktemp("long") / "sequence")


def test_every_name_is_exported_and_nothing_heavy_is_loaded() -> None:
    for name in evaluation.__all__:
        assert getattr(evaluation, name) is not None
    with pytest.raises(AttributeError):
        _ = evaluation.no_such_name
    heavy = "torch,matplotlib,zarr,rich"
    code = f"import sys, stf_depth.evaluation; print([m for m in '{heavy}'.split(',') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_no_frame_of_a_sequence_is_passed_over(room_sequence: Path, tmp_path: Path) -> None:
    for kind in ("color", "depth"):
        shutil.copytree(room_sequence / kind, tmp_path / kind)
        for name in (".DS_Store", "Thumbs.db", "._000001.png", ".hidden.jpg"):
            (tmp_path / kind / name).write_bytes(b"x")
        first = min((tmp_path / kind).glob("[0-9]*"))
        first.rename(first.with_stem("1²"))  # a superscript is a digit, but no number
    clip = read_sequence(tmp_path)
    assert len(clip) == 12
    assert clip.color_files[1].stem == "1²"


def test_streaming_equals_scoring_in_memory(long_sequence: Path, rng: np.random.Generator) -> None:
    clip = read_sequence(long_sequence)
    truth = np.stack([clip.full_truth_m(k) for k in range(len(clip))])
    p = (1 / np.maximum(truth, 0.1) * rng.uniform(0.8, 1.2, truth.shape)).astype(np.float32)
    p[3, 2:5] = np.nan
    streamed = score_prediction(ArrayPrediction(p, "disparity", "metric"), clip)
    assert clip.K is not None
    for group in ("metric", "scale", "affine"):
        whole = score_clip(p, truth, group=group, d_max_m=10.0, world_from_cam=clip.world_from_cam, K=clip.K)
        for name, value in whole.items():
            assert streamed.value(name, group) == pytest.approx(value, rel=1e-9), (group, name)


def test_threads_change_nothing(long_sequence: Path, rng: np.random.Generator) -> None:
    clip = read_sequence(long_sequence)
    p = rng.uniform(0.2, 1, (len(clip), 16, 24)).astype(np.float32)
    results = [
        score_prediction(ArrayPrediction(p, "disparity", "affine"), clip, options=ScoreOptions(workers=n)).as_json()
        for n in (1, 3)
    ]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("representation", "ambiguity"),
    [
        ("disparity", "metric"),
        ("disparity", "scale"),
        ("disparity", "affine"),
        ("z_depth", "metric"),
        ("z_depth", "scale"),
    ],
)
def test_true_results_score_perfectly_under_their_promise(
    make_result: Callable[..., Path], room_sequence: Path, representation: str, ambiguity: str
) -> None:
    result = make_result(representation=representation, ambiguity=ambiguity)
    scores = evaluate_sequence(result, room_sequence)
    assert next(group.value for group in scores.groups) == ambiguity
    for group in scores.groups:
        assert scores.value("abs_rel", group) < 1e-3
        assert scores.value("delta1", group) == 1.0
        assert scores.value("boundary_f1", group) > 0.97


def test_npz_and_result_folder_score_the_same(tiny_result: Path, room_sequence: Path, tmp_path: Path) -> None:
    from stf_depth.result import DepthResult

    result = DepthResult(tiny_result)
    np.savez_compressed(
        tmp_path / "depth.npz",
        depth=np.asarray(result.depth[:]),
        valid=np.asarray(result.valid[:]),
        representation=np.array(result.representation.value),
        ambiguity=np.array(result.ambiguity.value),
    )
    pair = [evaluate_sequence(path, room_sequence).as_json() for path in (tiny_result, tmp_path / "depth.npz")]
    for measures in pair[0]["groups"].values():
        assert 0 <= measures.pop("ause")["value"] < 2  # the file was saved without confidence
    assert pair[0] == pair[1]


def test_npy_exports_score_as_the_result(tiny_result: Path, room_sequence: Path, tmp_path: Path) -> None:
    (file, *_) = export_result(DepthResult(tiny_result), "npy", tmp_path)["npy"]
    scores = [evaluate_sequence(path, room_sequence) for path in (tiny_result, file.parent)]
    assert scores[0].value("abs_rel", "metric") == pytest.approx(scores[1].value("abs_rel", "metric"), abs=1e-6)
    (file.parent / "meaning.json").unlink()
    with pytest.raises(SpecError, match=r"--representation disparity --ambiguity affine"):
        evaluate_sequence(file.parent, room_sequence)


def test_a_result_with_a_missing_file_is_not_scored(make_result: Callable[..., Path], room_sequence: Path) -> None:
    folder = make_result()
    (folder / "depth.zarr" / "depth" / "c" / "1" / "0" / "0").unlink()
    for score in (lambda: evaluate_sequence(folder, room_sequence), lambda: evaluate_self(folder)):
        with pytest.raises(DamagedChunkError, match="damaged depth result"):
            score()


def test_valid_pixels_at_infinity_are_predictions_and_invalid_ones_are_not() -> None:
    z = np.array([[[2.0, np.inf, 0.0, np.nan]]], np.float32)
    with_mask = ArrayPrediction(z, "z_depth", "metric", valid=np.ones(z.shape, bool)).read([0])[0]
    assert with_mask[0, :3].tolist() == [0.5, 0.0, 0.0]
    assert np.isnan(with_mask[0, 3])
    without = ArrayPrediction(z, "z_depth", "metric").read([0, -1])
    assert without[0][0, 0] == 0.5
    assert np.isnan(without[0][0, 1:]).all()
    assert np.isnan(without[1]).all()


def test_folder_of_depth_images(room_clip: SyntheticClip, room_sequence: Path) -> None:
    # The ground truth folder itself: 16-bit millimetres.
    prediction = open_prediction(room_sequence / "depth")
    assert len(prediction) == len(room_clip)
    assert evaluate_sequence(room_sequence / "depth", room_sequence).value("abs_rel", "metric") < 1e-6


def test_frame_maps_come_from_text_files(tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("0\n1\n-1\n3\n")
    assert read_frame_map(tmp_path / "map.txt") == [0, 1, -1, 3]
    (tmp_path / "map.txt").write_text("0\n1.5\n")
    with pytest.raises(SequenceError, match="whole numbers"):
        read_frame_map(tmp_path / "map.txt")


def test_the_command_takes_a_frame_map_and_a_setting(
    room_sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from stf_depth.cli.main import main

    depth = np.stack([read_sequence(room_sequence).full_truth_m(k) for k in range(11)])
    np.savez(tmp_path / "depth.npz", depth=depth)
    (tmp_path / "map.txt").write_text("\n".join(map(str, [*range(11), -1])))
    command = ["evaluate", str(tmp_path / "depth.npz"), "--sequence", str(room_sequence), "--ambiguity", "metric"]
    command += ["--representation", "z_depth", "--json", str(tmp_path / "scores.json")]
    assert main(command) != 0
    assert "differ in frames" in "".join(capsys.readouterr())
    assert main([*command, "--frame-map", str(tmp_path / "map.txt")]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["counts"]["failed_frames"] == 1
    assert main(["evaluate", str(tmp_path), "--dataset", "tum", "--root", str(tmp_path), "--setting", "long"]) == 2


def test_json_is_strict_and_tables_name_the_alignment(tiny_result: Path, room_sequence: Path, tmp_path: Path) -> None:
    scores = evaluate_sequence(tiny_result, room_sequence, d_max_m=0.002)
    scores.write_json(tmp_path / "out" / "scores.json")
    content = json.loads((tmp_path / "out" / "scores.json").read_text(), parse_constant=pytest.fail)
    assert content["groups"]["affine"]["abs_rel"] == {"value": None, "reason": "no frame with ground truth"}
    scores = evaluate_sequence(tiny_result, room_sequence)
    lines = scores.markdown().splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["metric", "scale", "affine"]
    text = scores.text()
    for word in ("AbsRel", "TAE", "Boundary F1", "affine", "12 frames"):
        assert word in text


class TestSelf:
    def test_flickering_network_against_true_depth(self, tiny_result: Path) -> None:
        scores = evaluate_self(tiny_result)
        assert list(scores.measures) == ["per frame", "fused"]
        assert scores.value("flicker_percent", "per frame") > 3 * scores.value("flicker_percent")
        assert scores.value("flow_scale_drift", "per frame") > 5 * scores.value("flow_scale_drift")
        assert scores.value("opw_nvds") >= 0
        assert scores.value("opw_abs_rel", "per frame") > 3 * scores.value("opw_abs_rel") > 0
        assert len(scores.seconds) == len(scores.scale["fused"]) == 11
        assert sum(scores.confidence_shares.values()) == pytest.approx(1.0)
        assert scores.confidence_shares["0.75 to 1.00"] == 1.0

    def test_sharp_depth_finds_more_held_out_borders_than_blurred(
        self, make_result: Callable[..., Path], room_clip: SyntheticClip, tmp_path: Path
    ) -> None:
        import zarr

        for k, ids in enumerate(room_clip.labels):
            cv2.imwrite(str(tmp_path / f"{k:06d}.png"), ids.astype(np.uint16))
        sharp, blurred = make_result(), make_result()
        group = zarr.open_group(blurred / "depth.zarr", mode="r+")
        depth = np.asarray(group["depth"][:])
        group["depth"][:] = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in depth])
        recalls = [evaluate_self(path, masks=tmp_path).value("mask_recall") for path in (sharp, blurred)]
        assert recalls[0] > 2 * recalls[1]
        (tmp_path / "000000.png").unlink()
        with pytest.raises(SequenceError, match="one mask for each frame"):
            evaluate_self(sharp, masks=tmp_path)

    def test_affine_depth_has_no_error_of_z(self, make_result: Callable[..., Path]) -> None:
        measures = evaluate_self(make_result(ambiguity="affine")).measures["fused"]
        assert measures["opw_abs_rel"].reason == "affine disparity has no z-depth"
        assert measures["flicker_percent"].value > 0

    def test_no_mask_is_held_out_of_a_fusion_with_regions(self, make_result: Callable[..., Path]) -> None:
        result = make_result()
        manifest = json.loads((result / "manifest.json").read_text())
        manifest["config"]["panoptic"] = "regions"
        (result / "manifest.json").write_text(json.dumps(manifest))
        measure = evaluate_self(result).measures["fused"]["mask_recall"]
        assert np.isnan(measure.value)
        assert "held out" in measure.reason

    def test_without_the_cache_only_the_fused_depth_is_measured(self, make_result: Callable[..., Path]) -> None:
        result = make_result()
        manifest = json.loads((result / "manifest.json").read_text())
        manifest["stages"] = {}
        (result / "manifest.json").write_text(json.dumps(manifest))
        scores = evaluate_self(result)
        assert list(scores.measures) == ["fused"]
        assert any("no longer cached" in note for note in scores.notes)

    def test_plot_tables_and_json(self, tiny_result: Path, tmp_path: Path) -> None:
        scores = evaluate_self(tiny_result)
        scores.plot(tmp_path / "plot.png")
        assert read_rgb(tmp_path / "plot.png").std() > 1
        scores.write_json(tmp_path / "self.json")
        content = json.loads((tmp_path / "self.json").read_text(), parse_constant=pytest.fail)
        assert content["measures"]["fused"]["flicker_percent"]["value"] == scores.value("flicker_percent")
        assert "per frame" in scores.markdown()
        assert "Pixels by confidence" in scores.text()

    def test_the_same_numbers_come_back(self, tiny_result: Path) -> None:
        assert evaluate_self(tiny_result).as_json() == evaluate_self(tiny_result).as_json()


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "expected_abs_rel", "expected_tae"),
    [("meter_xxs_nyu_256x192.onnx", 0.146, 3.6), ("fastdepth_nyu_224.onnx", 0.122, 3.8)],
)
def test_reference_figures_of_recorded_sequence(
    shared_dir: Path, model: str, expected_abs_rel: float, expected_tae: float
) -> None:
    """The per-frame networks score what is written beside the data, within 5 %."""
    from stf_depth.perception.registry import create
    from stf_depth.types import Representation

    sequence = shared_dir / "data" / "redkitchen"
    clip = read_sequence(sequence)
    backend = create("depth", f"onnx:{shared_dir / 'models' / model}")
    maps = [backend.infer(clip.rgb(k)[None]) for k in range(len(clip))]
    assert maps[0].representation is Representation.Z_DEPTH
    prediction = ArrayPrediction(1 / np.maximum(np.concatenate([m.depth for m in maps]), 1e-3), "disparity", "affine")
    scores = score_prediction(prediction, clip, options=ScoreOptions(boundaries=False))
    assert scores.value("abs_rel", "affine") == pytest.approx(expected_abs_rel, rel=0.05)
    assert scores.value("tae", "affine") == pytest.approx(expected_tae, rel=0.05)
