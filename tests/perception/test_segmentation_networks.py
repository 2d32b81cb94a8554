"""Segmentation networks against the stock processing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stf_depth.errors import CheckpointError, WeightsError
from stf_depth.perception.panoptic.merge import MergeOptions, merge_queries
from stf_depth.perception.registry import create
from stf_depth.types import Role, SegmentInfo

Checkpoint = Callable[[str], Path]


def copy_with(folder: Path, target: Path, **files: dict[str, Any]) -> Path:
    """Copy of a checkpoint with JSON files changed: keys replaced in those that exist."""
    shutil.copytree(folder, target)
    for name, values in files.items():
        path = target / f"{name}.json"
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(content | values))
    return target


def stock_classes(name: str, folder: Path, planes: np.ndarray) -> np.ndarray:
    import transformers

    model = getattr(transformers, name).from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(planes)).logits
    upsampled = torch.nn.functional.interpolate(logits, planes.shape[-2:], mode="bilinear", align_corners=False)
    return upsampled.argmax(1).numpy()


def test_segformer_equals_the_stock_forward(checkpoint: Checkpoint, rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (1, 512, 640, 3), dtype=np.uint8)
    planes = ((rgb / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(0, 3, 1, 2).astype(np.float32)
    expected = stock_classes("SegformerForSemanticSegmentation", checkpoint("segformer"), planes)
    ids = create("semantic", f"hf:{checkpoint('segformer')}").infer(rgb).ids
    assert ids.shape == (1, 512, 640) and len(np.unique(ids)) > 1
    # ADE20K has no background: class 0, wall, is id 1.
    assert (ids == expected + 1).mean() > 0.999


def test_mobilevit_takes_bgr_and_voc_has_a_background(checkpoint: Checkpoint, tmp_path: Path, rng: Any) -> None:
    stated = {"do_flip_channel_order": True, "do_normalize": False, "crop_size": {"height": 64, "width": 64}}
    folder = copy_with(checkpoint("mobilevit"), tmp_path / "c", preprocessor_config=stated)
    rgb = rng.integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    planes = (rgb[..., ::-1] / 255).transpose(0, 3, 1, 2).astype(np.float32)
    expected = stock_classes("MobileViTForSemanticSegmentation", folder, planes)
    backend = create("semantic", f"hf:{folder}")
    maps = backend.infer(rgb)
    assert (maps.ids == expected).mean() > 0.999
    assert 0 not in maps.tables[0] and maps.tables[0][15].name == "person" and maps.tables[0][15].role is Role.MOVER
    flipped = copy_with(folder, tmp_path / "d", preprocessor_config={"do_flip_channel_order": False})
    # The tiny network answers one class everywhere, so its scores must be compared.
    scores = [create("semantic", f"hf:{path}")._network.model for path in (folder, flipped)]
    assert torch.equal(*(next(model.parameters()) for model in scores))
    assert create("semantic", f"hf:{flipped}")._is_bgr is False and backend._is_bgr is True


def test_labels_come_from_the_checkpoint(checkpoint: Checkpoint, tmp_path: Path, frames: np.ndarray) -> None:
    names = {str(number): f"thing {number}" for number in range(150)} | {"3": "sky"}
    folder = copy_with(checkpoint("segformer"), tmp_path / "c", config={"id2label": names})
    table = create("semantic", f"hf:{folder}?short_side=64").infer(frames).tables[0]
    assert table[4].role is Role.SKY and table[5].name == "thing 4" and table[5].role is Role.UNKNOWN


def test_deeplab_equals_the_stock_forward(state_file: Callable[[str], Path], rng: np.random.Generator) -> None:
    from torchvision.models import get_model

    path = state_file("deeplabv3_mobilenet_v3_large")
    model = get_model("deeplabv3_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=21).eval()
    model.load_state_dict(torch.load(path, weights_only=True))
    rgb = rng.integers(0, 256, (1, 128, 160, 3), dtype=np.uint8)
    planes = ((rgb / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(planes))["out"].argmax(1).numpy()
    maps = create("semantic", f"deeplabv3-mobilenetv3?weights={path}&short_side=128").infer(rgb)
    assert (maps.ids == expected).mean() > 0.999 and maps.tables[0][15].name == "person"


def test_deeplab_with_auxiliary_head_and_own_classes(tmp_path: Path, frames: np.ndarray) -> None:
    from torchvision.models import get_model

    model = get_model(
        "deeplabv3_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=19, aux_loss=True
    )
    torch.save(model.state_dict(), tmp_path / "w.pth")
    maps = create("semantic", f"deeplabv3-mobilenetv3?weights={tmp_path / 'w.pth'}&short_side=64").infer(frames)
    assert maps.tables[0][1].name == "road"


# ---- mask classification -------------------------------------------------------------------------------------------

CLASSES = {
    0: SegmentInfo("person", Role.MOVER, True),
    1: SegmentInfo("sky", Role.SKY),
    2: SegmentInfo("road", Role.GROUND),
}


def one_hot(labels: list[int], score: float = 20.0) -> torch.Tensor:
    logits = torch.zeros(len(labels), 4)
    logits[range(len(labels)), labels] = score
    return logits


def halves() -> torch.Tensor:
    masks = torch.zeros(4, 4, 6)
    masks[0, :, :2], masks[1, :, 2:4], masks[2, :2, 4:], masks[3, 2:, 4:] = 1, 1, 1, 1
    return masks


def test_stuff_of_one_class_is_joined_and_things_are_not() -> None:
    ids, table = merge_queries(one_hot([1, 0, 1, 0]), halves(), CLASSES, MergeOptions())
    assert ids[0].tolist() == [1, 1, 2, 2, 1, 1] and ids[3].tolist() == [1, 1, 2, 2, 3, 3]
    assert [table[number].name for number in (1, 2, 3)] == ["sky", "person", "person"]


def test_no_object_low_scores_and_hidden_masks_are_dropped() -> None:
    masks = halves()
    masks[3, :, :2] = 0.9  # mostly hidden behind query 0
    ids, table = merge_queries(one_hot([1, 3, 2, 0]), masks, CLASSES, MergeOptions())
    assert set(table) == {1, 2} and (ids[:, 2:4] == 0).all() and (ids[2:, 4:] == 0).all()
    ids, table = merge_queries(one_hot([1, 0, 1, 0], score=1.0), halves(), CLASSES, MergeOptions())
    assert not table and not ids.any() and ids.shape == (4, 6)


def test_merging_agrees_with_the_published_one(rng: np.random.Generator) -> None:
    from transformers.models.eomt.image_processing_eomt import compute_segments, remove_low_and_no_objects

    logits = torch.from_numpy(rng.normal(0, 3, (12, 4)).astype(np.float32))
    coarse = torch.from_numpy(rng.normal(0, 4, (1, 12, 5, 6)).astype(np.float32))
    mask_logits = torch.nn.functional.interpolate(coarse, (40, 48), mode="bilinear")[0]
    scores, labels = logits.softmax(-1).max(-1)
    kept = remove_low_and_no_objects(mask_logits, scores, labels, 0.5, 3)
    expected, segments = compute_segments(*kept, stuff_classes=[1, 2], overlap_mask_area_threshold=0.3)
    ids, table = merge_queries(logits, mask_logits.sigmoid(), CLASSES, MergeOptions(threshold=0.5, overlap=0.3))
    assert len(segments) > 1
    np.testing.assert_array_equal(ids, expected.numpy() + 1)
    assert [CLASSES[segment["label_id"]].name for segment in segments] == [info.name for info in table.values()]


LOW = "threshold=0&overlap=0&short_side=64"


def test_oneformer_feeds_the_task(checkpoint: Checkpoint, frames: np.ndarray) -> None:
    from transformers import CLIPTokenizer

    folder = checkpoint("oneformer")
    backend = create("panoptic", f"hf:{folder}?{LOW}")
    expected = CLIPTokenizer.from_pretrained(folder)("the task is panoptic")["input_ids"]
    tokens = backend._task_tokens[0].tolist()
    assert len(tokens) == 77 and tokens[: len(expected)] == expected and not any(tokens[len(expected) :])


def test_oneformer_reads_a_class_file_kept_with_the_checkpoint(
    checkpoint: Checkpoint, tmp_path: Path, frames: np.ndarray
) -> None:
    classes = {str(number): {"name": "sky", "isthing": 0} for number in range(150)}
    folder = copy_with(
        checkpoint("oneformer"),
        tmp_path / "c",
        preprocessor_config={"class_info_file": "classes.json", "repo_path": "somewhere/else"},
        classes=classes,
    )
    maps = create("panoptic", f"hf:{folder}?{LOW}").infer(frames)
    assert {info.role for table in maps.tables for info in table.values()} == {Role.SKY}
    (folder / "classes.json").write_text("{")
    with pytest.raises(WeightsError, match="damaged class list"):
        create("panoptic", f"hf:{folder}?{LOW}")


def test_oneformer_without_tokenizer(checkpoint: Checkpoint, tmp_path: Path, frames: np.ndarray) -> None:
    folder = copy_with(checkpoint("oneformer"), tmp_path / "c")
    (folder / "merges.txt").unlink()
    with pytest.raises(WeightsError, match="no tokenizer"):
        create("panoptic", f"hf:{folder}?{LOW}")


def test_eomt_cuts_its_padding(checkpoint: Checkpoint, rng: np.random.Generator) -> None:
    backend = create("panoptic", f"hf:{checkpoint('eomt')}?threshold=0&overlap=0")
    assert backend.infer(rng.integers(0, 256, (1, 32, 64, 3), dtype=np.uint8)).ids.shape == (1, 32, 64)
    assert backend.infer(rng.integers(0, 256, (1, 64, 16, 3), dtype=np.uint8)).ids.shape == (1, 64, 16)


def test_unnamed_classes_of_an_unknown_number_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    labels = {str(number): f"LABEL_{number}" for number in range(7)}
    folder = copy_with(checkpoint("segformer"), tmp_path / "c", config={"id2label": labels})
    with pytest.raises(CheckpointError, match="does not name its classes"):
        create("semantic", f"hf:{folder}")
