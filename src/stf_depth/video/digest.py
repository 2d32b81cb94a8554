"""Identity of an input by its content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stf_depth.errors import InputNotFoundError, UnreadableVideoError
from stf_depth.video.sequence import sequence_images

__all__ = ["content_digest"]

BLOCK_BYTES = 1 << 20


def content_digest(path: Path) -> str:
    """SHA-256 in hexadecimal of a file's bytes, or of the names and digests of a sequence folder's images.

    Raises InputNotFoundError where nothing lies, UnreadableVideoError for what cannot be read.
    """
    if not path.exists():
        raise InputNotFoundError("nothing to read", where=path)
    try:
        if not path.is_dir():
            return _file_digest(path)
        digest = hashlib.sha256(b"sequence\0")
        for image in sequence_images(path):
            digest.update(f"{image.name}\0{_file_digest(image)}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
    except OSError as error:
        raise UnreadableVideoError("cannot read the input", where=path, got=error.strerror) from error


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
