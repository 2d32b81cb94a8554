"""Finding weights: local folders, the hub cache, and what is said when there are none."""

from __future__ import annotations

import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stf_depth.errors import CheckpointError, ConfigError, DeviceError, WeightsError
from stf_depth.perception import weights
from stf_depth.perception.registry import create, models_table

Checkpoint = Callable[[str], Path]
FRAME = np.zeros((1, 32, 32, 3), np.uint8)


@pytest.fixture
def copy(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint("dpt-large"), tmp_path / "copy"))


def into_hub_cache(cache: Path, model_id: str, folder: Path, commit: str = "a" * 40) -> Path:
    repository = cache / f"models--{model_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return Path(shutil.copytree(folder, repository / "snapshots" / commit))


def test_without_network_and_cache_the_error_says_it_all(no_network: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        create("depth", "dpt-large")
    for part in ("dpt-large", "Intel/dpt-large", str(no_network), "--preset offline", "Name or service not known"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("task", "name"), [("semantic", "deeplabv3-resnet101"), ("flow", "raft-large")])
def test_torchvision_weights_fail_the_same_way(task: Any, name: str, no_network: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        create(task, name)
    for part in (name, str(tmp_path / "torch"), "--preset offline", "Name or service not known"):
        assert part in str(caught.value)


def test_a_hub_that_never_answers_is_given_up(no_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    never = threading.Event()
    monkeypatch.setattr(weights, "CONNECT_SECONDS", -1.9)  # two seconds of grace are added
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_a, **_o: never.wait())
    with pytest.raises(WeightsError, match="no answer"):
        create("depth", "dpt-large")
    never.set()


def test_cached_snapshot_is_used_without_network(no_network: Path, checkpoint: Checkpoint) -> None:
    into_hub_cache(no_network, "Intel/dpt-large", checkpoint("dpt-large"))
    backend = create("depth", "dpt-large")
    assert backend is not None
    assert backend.info.weights_digest == f"hub:Intel/dpt-large@{'a' * 40}"
    assert backend.info.licence.commercial is True
    assert {row.name for row in models_table() if row.cached and row.size_mb} == {"dpt-large"}
    assert backend.infer(FRAME).depth.shape == (1, 384, 384)


def test_incomplete_snapshot_is_not_cached(no_network: Path, checkpoint: Checkpoint) -> None:
    snapshot = into_hub_cache(no_network, "Intel/dpt-large", checkpoint("dpt-large"))
    (snapshot / "model.safetensors").unlink()
    assert weights.cached_snapshot("Intel/dpt-large") is None


def test_all_shards_are_needed(no_network: Path, checkpoint: Checkpoint) -> None:
    snapshot = into_hub_cache(no_network, "Intel/dpt-large", checkpoint("dpt-large"))
    (snapshot / "model.safetensors").rename(snapshot / "model-00001-of-00002.safetensors")
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    (snapshot / "model.safetensors.index.json").write_text(index)
    assert weights.cached_snapshot("Intel/dpt-large") is None


def test_download_asks_for_weights_and_small_files_only(
    no_network: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    names = ["config.json", "model.safetensors", "pytorch_model.bin", "README.md"]
    siblings = [type("File", (), {"rfilename": name}) for name in names]
    info = type("Info", (), {"siblings": siblings})
    asked: dict[str, Any] = {}

    def download(model_id: str, **options: Any) -> str:
        asked.update(options)
        return str(into_hub_cache(no_network, model_id, checkpoint("dpt-large")))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_a, **_o: info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert create("depth", "dpt-large") is not None
    assert "*.safetensors" in asked["allow_patterns"] and "pytorch_model*.bin" not in asked["allow_patterns"]


@pytest.mark.parametrize("damage", ["cut", "longer", "garbage", "empty"])
def test_damaged_safetensors_are_named(damage: str, copy: Path) -> None:
    path = copy / "model.safetensors"
    content = path.read_bytes()
    damaged = {"cut": content[:-100], "longer": content + b"0", "garbage": b"\xff" * 100, "empty": b""}[damage]
    path.write_bytes(damaged)
    with pytest.raises(WeightsError, match="damaged weights") as caught:
        create("depth", f"hf:{copy}")
    assert str(path) in str(caught.value)


def test_damaged_config(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json"):
        create("depth", f"hf:{copy}")


@pytest.mark.parametrize("spec", ["hf:/no/such/folder", "hf:./nothing", "hf:justaname"])
def test_missing_folder(spec: str, no_network: Path) -> None:
    with pytest.raises(WeightsError, match="no such checkpoint folder"):
        create("depth", spec)


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a checkpoint folder"):
        create("depth", f"hf:{tmp_path}")


def test_a_pickle_is_never_executed(copy: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Bomb()}))
    backend = create("depth", f"hf:{copy}")
    assert backend is not None
    with pytest.raises(WeightsError):
        backend.infer(FRAME)
    file = tmp_path / "state.pth"
    file.write_bytes(pickle.dumps({"weight": Bomb()}))
    flow = create("flow", f"raft-small?weights={file}")
    assert flow is not None
    with pytest.raises(WeightsError, match="damaged weights"):
        flow.infer(FRAME, FRAME)
    assert not (tmp_path / "executed").exists()


def test_missing_tensors_are_not_made_up(copy: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    first = next(key for key in tensors if "head" in key)
    del tensors[first]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    backend = create("depth", f"hf:{copy}")
    assert backend is not None
    with pytest.raises(CheckpointError, match=first.replace(".", r"\.")):
        backend.infer(FRAME)


def test_tensors_of_another_shape(copy: Path) -> None:
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 32', '"hidden_size": 64'))
    backend = create("depth", f"hf:{copy}")
    assert backend is not None
    with pytest.raises(CheckpointError, match="do not fit"):
        backend.infer(FRAME)


def test_state_of_another_torchvision_network(state_file: Callable[[str], Path]) -> None:
    backend = create("flow", f"raft-large?weights={state_file('raft_small')}")
    assert backend is not None
    with pytest.raises(CheckpointError, match="do not fit"):
        backend.infer(FRAME, FRAME)


def test_digest_of_a_folder_follows_its_content_not_its_place(copy: Path, checkpoint: Checkpoint) -> None:
    original = weights.find_checkpoint(str(checkpoint("dpt-large")), "a").digest
    assert weights.find_checkpoint(str(copy), "b").digest == original
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert weights.find_checkpoint(str(copy), "b").digest != original


def test_an_absent_device_is_not_replaced(checkpoint: Checkpoint) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError, match="no such device"):
        create("depth", f"hf:{checkpoint('dpt-large')}", device="cuda")


def test_unknown_precision(checkpoint: Checkpoint) -> None:
    backend = create("depth", f"hf:{checkpoint('dpt-large')}", precision="int8")
    assert backend is not None
    with pytest.raises(ConfigError, match="precision"):
        backend.infer(FRAME)
