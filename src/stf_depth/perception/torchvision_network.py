"""Loading and running torchvision networks: one file of weights, never anything but tensors in it."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from stf_depth.errors import CheckpointError, WeightsError
from stf_depth.perception.base import BackendRequest
from stf_depth.perception.device import resolve_device, running_on
from stf_depth.perception.weights import CONNECT_SECONDS, OFFLINE_HINT, file_digest, torch_hub_folder

__all__ = ["TorchvisionNetwork"]

State = Mapping[str, torch.Tensor]


class TorchvisionNetwork:
    """A network of torchvision, from ``location``: the name of a network with published weights, or a file.

    build: state of the weights -> an empty network to fill. Raises WeightsError when made without weights.
    """

    def __init__(self, request: BackendRequest, builder: str, build: Callable[[State], Any]) -> None:
        self.name = request.name
        self.precision = request.precision
        self.device = resolve_device(request.device)
        self._build = build
        self.path = _find_weights(request.location, builder, request.name)
        self.digest = f"sha256:{file_digest(self.path)}"

    @cached_property
    def model(self) -> Any:
        """The network in evaluation mode on its device.

        Raises WeightsError for a damaged file and CheckpointError for the weights of another network.
        """
        state = self._state()
        try:
            model = self._build(state)
            model.load_state_dict(state)
        except (RuntimeError, KeyError) as error:
            got = " ".join(str(error).split())[:200]
            raise CheckpointError("weights do not fit the network", where=self.path, got=got) from error
        with running_on(self.device, "float32", self.name):
            return model.eval().to(self.device)

    def _state(self) -> State:
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            got = " ".join(str(error).split())[:200]
            raise WeightsError(f"damaged weights of {self.name}", where=self.path, got=got) from error
        if not isinstance(state, Mapping):
            raise CheckpointError("not a dictionary of weights", where=self.path, got=type(state).__name__)
        return state


def _find_weights(location: str, builder: str, name: str) -> Path:
    if location != builder:
        path = Path(location).expanduser()
        if not path.is_file():
            raise WeightsError(f"no such file of weights for {name}", where=path)
        return path
    from torchvision.models import get_model_weights

    url: str = get_model_weights(builder).DEFAULT.url
    path = torch_hub_folder() / url.rsplit("/", 1)[-1]
    if not path.is_file():
        _download(url, path, name)
    return path


def _download(url: str, path: Path, name: str) -> None:
    failure = _connection_failure(url)
    try:
        if failure is not None:
            raise failure
        path.parent.mkdir(parents=True, exist_ok=True)
        # torchvision ends the file name with the first digits of its digest.
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[-1])
    except (OSError, RuntimeError) as error:
        where = f"{path.name}, looked in {path.parent}"
        raise WeightsError(f"no weights for {name}", where=where, got=str(error), hint=OFFLINE_HINT) from error


def _connection_failure(url: str) -> OSError | None:
    """What keeps the server from answering; a thread bounds the wait, as name resolution has no time limit."""
    failures: list[OSError] = [TimeoutError(f"no answer within {CONNECT_SECONDS:g} s")]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_SECONDS):
                failures.clear()
        except OSError as error:
            failures.insert(0, error)

    thread = threading.Thread(target=ask, name="weights", daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS + 2)
    return failures[0] if failures else None
