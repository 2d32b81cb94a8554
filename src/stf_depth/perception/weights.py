"""Where weights are: a local folder or file, the hub cache, or the hub.

Nothing is loaded here and no remote code is ever run; a checkpoint is a folder with ``config.json`` and
weights, and a digest that identifies it in cache keys.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stf_depth.errors import CheckpointError, WeightsError

__all__ = [
    "Checkpoint",
    "cached_snapshot",
    "checkpoint_config",
    "file_digest",
    "find_checkpoint",
    "hub_cache_folder",
    "torch_hub_folder",
]

CONNECT_SECONDS = 8.0
OFFLINE_HINT = "Connect once to download it, or use --preset offline, which needs no weights"
SAFE_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
TORCH_WEIGHTS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
SMALL_FILES = ("*.json", "*.txt")


@dataclass(frozen=True)
class Checkpoint:
    """A transformers checkpoint on disk. digest: hub revision, or SHA-256 of a local folder's files."""

    name: str
    folder: Path
    digest: str

    @property
    def config(self) -> dict[str, Any]:
        """Content of ``config.json``; raises WeightsError when it is damaged."""
        return _read_json(self.folder / "config.json", self.name)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Content of ``preprocessor_config.json``, empty where there is none."""
        path = self.folder / "preprocessor_config.json"
        return _read_json(path, self.name) if path.is_file() else {}

    @property
    def has_safetensors(self) -> bool:
        """Whether the weights are safetensors rather than PyTorch files."""
        return any(self.folder.glob("*.safetensors"))

    def require(self, architectures: tuple[str, ...]) -> None:
        """Raise CheckpointError unless config.json names one of these classes (or none at all)."""
        found = self.config.get("architectures") or []
        names = [str(name) for name in found] if isinstance(found, list) else [str(found)]
        if names and not set(names) & set(architectures):
            wanted = " or ".join(architectures)
            raise CheckpointError("checkpoint of another kind", where=self.name, expected=wanted, got=", ".join(names))


def find_checkpoint(location: str, name: str) -> Checkpoint:
    """A local folder, a cached snapshot, or a download, in this order; ``location`` may end in ``@revision``.

    Raises WeightsError where there is none of them, and for files that are missing or cut short.
    """
    folder = Path(location).expanduser()
    if folder.is_dir():
        checkpoint = Checkpoint(name, folder, _folder_digest(folder, name))
    elif _looks_local(location):
        raise WeightsError("no such checkpoint folder", where=location, expected="a folder with config.json")
    else:
        model_id, _, revision = location.partition("@")
        snapshot = cached_snapshot(model_id, revision or None) or _download(model_id, revision or None, name)
        checkpoint = Checkpoint(name, snapshot, f"hub:{model_id}@{snapshot.name}")
    for path in sorted(checkpoint.folder.glob("*.safetensors")):
        _check_safetensors(path, name)
    return checkpoint


def checkpoint_config(location: str, name: str) -> dict[str, Any]:
    """``config.json`` of a checkpoint, without reading the weights of a local one; raises as ``find_checkpoint``."""
    path = Path(location).expanduser() / "config.json"
    return _read_json(path, name) if path.is_file() else find_checkpoint(location, name).config


def hub_cache_folder() -> Path:
    """Where hub snapshots are kept."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_snapshot(model_id: str, revision: str | None = None) -> Path | None:
    """Folder of a complete cached snapshot, None where there is none; touches no network."""
    repository = hub_cache_folder() / f"models--{model_id.replace('/', '--')}"
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else (revision or "")
    snapshot = repository / "snapshots" / commit
    return snapshot if commit and _is_complete(snapshot) else None


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _looks_local(location: str) -> bool:
    return location.startswith((".", "/", "~")) or location.count("/") > 1 or "/" not in location


def _is_complete(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    return any(_has_all_shards(folder, *patterns) for patterns in (SAFE_WEIGHTS, TORCH_WEIGHTS))


def _has_all_shards(folder: Path, pattern: str, index_pattern: str) -> bool:
    for index in folder.glob(index_pattern):
        shards = _read_json(index, folder.name).get("weight_map", {})
        there = {path.name for path in folder.iterdir()}
        return isinstance(shards, dict) and all(isinstance(name, str) and name in there for name in shards.values())
    return any(folder.glob(pattern))


def _folder_digest(folder: Path, name: str) -> str:
    if not _is_complete(folder):
        expected = "config.json and model.safetensors or pytorch_model.bin"
        raise WeightsError("not a checkpoint folder", where=f"{folder} for {name}", expected=expected)
    digest = hashlib.sha256()
    patterns = (*SAFE_WEIGHTS, *TORCH_WEIGHTS, *SMALL_FILES)
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        digest.update(f"{path.name}\0{file_digest(path)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"unreadable file of {name}", where=path, got=error) from error
    if not isinstance(content, dict):
        raise WeightsError(f"unreadable file of {name}", where=path, expected="a JSON object")
    return content


def _check_safetensors(path: Path, name: str) -> None:
    # The header says how long the file must be: cheap, and finds every interrupted copy before the network loads.
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            header_length = int.from_bytes(stream.read(8), "little")
            if header_length > size:
                raise ValueError("header longer than the file")
            header = json.loads(stream.read(header_length))
        ends = [int(entry["data_offsets"][1]) for key, entry in header.items() if key != "__metadata__"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise WeightsError(
            f"damaged weights of {name}", where=path, got=error, hint="Delete and fetch again"
        ) from error
    expected = 8 + header_length + max(ends, default=0)
    if size != expected:
        what = f"damaged weights of {name}"
        raise WeightsError(what, where=path, expected=f"{expected} bytes", got=size, hint="Delete and fetch again")


def _download(model_id: str, revision: str | None, name: str) -> Path:
    files = _remote_files(model_id, revision, name)
    is_safe = any(file.endswith(".safetensors") for file in files)
    patterns = [*(SAFE_WEIGHTS if is_safe else TORCH_WEIGHTS), *SMALL_FILES]
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise _unobtainable(model_id, name, error) from error
    if not _is_complete(folder):
        raise WeightsError(f"the hub has no usable weights for {name}", where=model_id, got=", ".join(files))
    return folder


def _remote_files(model_id: str, revision: str | None, name: str) -> list[str]:
    """Names of the files on the hub. A thread bounds the wait, because name resolution has no time limit."""
    from huggingface_hub import HfApi

    found: list[str] = []
    failures: list[Exception] = [TimeoutError(f"no answer within {CONNECT_SECONDS:g} s")]

    def ask() -> None:
        try:
            info = HfApi().model_info(model_id, revision=revision, timeout=CONNECT_SECONDS)
            found.extend(sibling.rfilename for sibling in info.siblings or [])
            failures.clear()
        except Exception as error:
            failures.insert(0, error)

    thread = threading.Thread(target=ask, name="hub", daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS + 2)
    if failures:
        raise _unobtainable(model_id, name, failures[0]) from failures[0]
    return found


def _unobtainable(model_id: str, name: str, error: Exception) -> WeightsError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    where = f"{model_id}, looked in {hub_cache_folder()}"
    return WeightsError(f"no weights for {name}", where=where, got=reason, hint=OFFLINE_HINT)


def torch_hub_folder() -> Path:
    """Where torchvision keeps its weights, found without importing torch."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    return Path(os.environ.get("TORCH_HOME", default)).expanduser() / "hub" / "checkpoints"
