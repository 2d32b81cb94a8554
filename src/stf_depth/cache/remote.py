"""Folders on shared storage (``s3://bucket/results``), worked on as local copies. The only file that knows fsspec.

A copy is made equal to the storage before a video is worked on, and what changed is sent back while it is. Markers and
manifests, which say that other files are whole, are sent last and removed first: at any moment the storage holds what a
run that was killed at that moment would have left.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stf_depth.cache.files import output_errors, read_json, remove_partials, write_json
from stf_depth.errors import ConfigError, MissingExtraError, OutputError

__all__ = ["STAGING_VARIABLE", "Mirror", "Snapshot", "is_remote", "mirror_of"]

STAGING_VARIABLE = "STF_DEPTH_STAGING"
# What the local copy knows of the storage: name -> size and time of the copy, and the version of the original.
_RECORD = ".remote.json"
# They have no folders; asked for one, they would make the bucket.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
_LOCAL_ONLY = (".lock", _RECORD)

# Relative name -> size and time of change of a file that both sides have.
Snapshot = Mapping[str, tuple[int, int]]


def is_remote(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is named by a URL.

    >>> is_remote("s3://bucket/results"), is_remote("data/output")
    (True, False)
    """
    return "://" in os.fspath(folder)


@dataclass(frozen=True)
class Mirror:
    """A folder on shared storage and its local copy. One run at a time may work on it: locks are local."""

    url: str
    local: Path

    def of(self, name: str) -> Mirror:
        """The same for a folder or file inside."""
        return Mirror(f"{self.url}/{name}", self.local / name)

    def pull(self) -> Snapshot:
        """Make the local copy equal to the storage; raises OutputError, MissingExtraError or ConfigError."""
        with _reached(self.url) as (storage, root):
            versions = _versions(storage, root)
            with output_errors(self.local):
                self.local.mkdir(parents=True, exist_ok=True)
                remove_partials(self.local)
                here, record = _local_files(self.local), read_json(self.local / _RECORD)
                for name in here.keys() - versions.keys():
                    (self.local / name).unlink()
            for name, version in versions.items():
                is_known = isinstance(record, dict) and name in here and record.get(name) == [*here[name], version]
                if not is_known:
                    (self.local / name).parent.mkdir(parents=True, exist_ok=True)
                    storage.get_file(f"{root}/{name}", str(self.local / name))
            return self._recorded(_local_files(self.local), versions)

    def push(self, known: Snapshot) -> Snapshot:
        """Send what changed since ``known``, and remove what is gone; raises as ``pull`` does."""
        found = _local_files(self.local)
        gone = known.keys() - found.keys()
        changed = [name for name, state in found.items() if known.get(name) != state]
        if not gone and not changed:
            return found
        with _reached(self.url) as (storage, root):
            stale = gone | {name for name in changed if name in known and _says_that_others_are_whole(name)}
            for name in sorted(stale, key=_rank, reverse=True):
                _remove(storage, f"{root}/{name}")
            for name in sorted(changed, key=_rank):
                self._send(storage, root, name)
            return self._recorded(found, _versions(storage, root))

    def _recorded(self, found: dict[str, tuple[int, int]], versions: Mapping[str, str]) -> Snapshot:
        write_json(self.local / _RECORD, {n: [*found[n], v] for n, v in versions.items() if n in found})
        return found

    def pull_file(self, name: str) -> None:
        """Fetch one file, or remove the local one where the storage has none; raises as ``pull`` does."""
        path = self.local / name
        with _reached(self.url) as (storage, root):
            storage.invalidate_cache()  # other machines write there too
            if storage.exists(f"{root}/{name}"):
                path.parent.mkdir(parents=True, exist_ok=True)
                storage.get_file(f"{root}/{name}", str(path))
            else:
                path.unlink(missing_ok=True)

    def push_file(self, name: str) -> None:
        """Send one file; raises as ``pull`` does."""
        with _reached(self.url) as (storage, root):
            self._send(storage, root, name)

    def _send(self, storage: Any, root: str, name: str) -> None:
        path = self.local / name
        if path.is_file():  # else it was replaced meanwhile, and the next time sends what took its place
            if not _OBJECT_STORES.intersection(_protocols(storage)):
                storage.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
            storage.put_file(str(path), f"{root}/{name}")


def mirror_of(url: str) -> Mirror:
    """The local copy of a URL: under $STF_DEPTH_STAGING, or ~/.cache/stf-depth/staging. Raises ConfigError."""
    url = url.rstrip("/")
    staging = os.environ.get(STAGING_VARIABLE) or Path.home() / ".cache" / "stf-depth" / "staging"
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    if not url.partition("://")[2]:
        raise ConfigError("a URL without a place", expected="such as s3://bucket/results", got=url)
    return Mirror(url, Path(staging).absolute() / digest)


@contextmanager
def _reached(url: str) -> Iterator[tuple[Any, str]]:
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtraError.of("fsspec", "s3") from error
    try:
        storage, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingExtraError.of(str(error), "s3") from error
    except ValueError as error:
        raise ConfigError("unknown kind of storage", got=url, hint=str(error)) from error
    try:
        yield storage, root.rstrip("/")
    except OutputError:
        raise
    except Exception as error:  # each storage raises what its own library does
        hint = "Check the URL, the credentials and the network, and run again: finished parts are kept"
        raise OutputError("the shared storage cannot be used", where=url, got=repr(error)[:200], hint=hint) from error


def _versions(storage: Any, root: str) -> dict[str, str]:
    """Relative name -> what changes with the content, for every file of the storage."""
    storage.invalidate_cache()  # other machines write there too
    try:
        found = storage.find(root, detail=True)
    except FileNotFoundError:
        return {}
    marks = ("ETag", "etag", "mtime", "created", "LastModified")
    names = {path: path[len(root) :].lstrip("/") for path in found}
    return {
        _inside(name): str([found[path]["size"], *(found[path][mark] for mark in marks if mark in found[path])])
        for path, name in names.items()
        if name and not name.endswith("/")  # consoles of object stores make such entries for folders
    }


def _inside(name: str) -> str:
    """``name``, which whoever writes to the storage chose; raises OutputError where it leads out of the local copy."""
    if {"", ".", ".."} & set(name.split("/")) or "\\" in name:
        raise OutputError(
            "a name in the shared storage leads out of its folder", got=name, hint="Remove the file there"
        )
    return name


def _protocols(storage: Any) -> tuple[str, ...]:
    return (storage.protocol,) if isinstance(storage.protocol, str) else tuple(storage.protocol)


def _remove(storage: Any, path: str) -> None:
    with suppress(FileNotFoundError):  # an earlier try may have come as far as this
        storage.rm_file(path)


def _local_files(folder: Path) -> dict[str, tuple[int, int]]:
    # Two walks, markers first: what is written between them must not show a marker without its files.
    markers = {name: state for name, state in _walk(folder) if _says_that_others_are_whole(name)}
    others = {name: state for name, state in _walk(folder) if not _says_that_others_are_whole(name)}
    return {**others, **markers}


def _walk(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for path in sorted(folder.rglob("*")):
        if path.name in _LOCAL_ONLY or ".partial" in path.name:
            continue
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            yield path.relative_to(folder).as_posix(), (state.st_size, state.st_mtime_ns)


def _says_that_others_are_whole(name: str) -> bool:
    return name.endswith(".json") and "data.zarr/" not in name and "depth.zarr/" not in name


def _rank(name: str) -> tuple[int, str]:
    """Files in the order in which they may be sent: data, markers of chunks, markers of stages, the manifest."""
    last = 3 if name == "manifest.json" else 2 if name.endswith("complete.json") else 1
    return (last if _says_that_others_are_whole(name) else 0, name)
