"""Fixtures of the backends: tiny checkpoints and small ONNX graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def quiet_transformers() -> Iterator[None]:
    from transformers.utils import logging

    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``checkpoint("dpt-large")``: folder of the tiny checkpoint, made once."""
    import tiny_checkpoints

    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tiny_checkpoints.save(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.fixture(scope="session")
def state_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``state_file("raft_small")``: random weights of a torchvision network, as the published files hold them."""
    import torch
    from torchvision.models import get_model

    made: dict[str, Path] = {}

    def make(builder: str) -> Path:
        if builder not in made:
            torch.manual_seed(0)
            options = {} if builder.startswith("raft") else {"weights_backbone": None, "num_classes": 21}
            model = get_model(builder, weights=None, **options)
            made[builder] = tmp_path_factory.mktemp(builder) / "weights.pth"
            torch.save(model.state_dict(), made[builder])
        return made[builder]

    return make


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty caches and a hub that cannot be reached; returns the hub cache folder."""
    import huggingface_hub
    from huggingface_hub import constants

    def fail(*_args: object, **_options: object) -> None:
        raise OSError("[Errno -2] Name or service not known")

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    monkeypatch.setattr("urllib.request.urlopen", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return cache


@pytest.fixture
def frames(rng: np.random.Generator) -> np.ndarray:
    """Three smooth random frames, 40x64."""
    import cv2

    coarse = rng.integers(0, 256, (3, 5, 8, 3), dtype=np.uint8)
    return np.stack([cv2.resize(frame, (64, 40), interpolation=cv2.INTER_CUBIC) for frame in coarse])
