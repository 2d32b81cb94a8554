"""The text that chooses a backend: ``name``, ``hf:...``, ``onnx:...``, ``precomputed:...`` or ``none``.

    SPEC    = "none" | NAME [OPTIONS] | KIND ":" TARGET [OPTIONS]
    KIND    = "hf" | "onnx" | "precomputed"
    OPTIONS = "?" KEY "=" VALUE { "&" KEY "=" VALUE }

A path that exists with a ``?`` in it is taken whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from stf_depth.errors import SpecError

__all__ = ["BackendSpec", "SpecKind", "parse_spec"]

SpecKind = Literal["name", "hf", "onnx", "precomputed", "none"]
FILE_KINDS = ("hf", "onnx", "precomputed")


@dataclass(frozen=True)
class BackendSpec:
    """A parsed specification. target: registered name, hub id, file or folder; empty for ``none``."""

    kind: SpecKind
    target: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.kind == "none":
            return "none"
        text = self.target if self.kind == "name" else f"{self.kind}:{self.target}"
        options = "&".join(f"{key}={value}" for key, value in self.options.items())
        return f"{text}?{options}" if options else text

    @property
    def path(self) -> Path:
        """The target as a path, ``~`` expanded."""
        return expanded(self.target)


def expanded(text: str) -> Path:
    """A path with ``~`` expanded; raises SpecError for the home of a user that there is not."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise SpecError("no such home folder", where=text) from error


def parse_spec(text: str) -> BackendSpec:
    """Parse a specification.

    >>> parse_spec("onnx:depth.onnx?representation=z_depth&ambiguity=metric").options["ambiguity"]
    'metric'

    Raises SpecError for an empty text, an unknown kind, a missing target, or an option that is not ``key=value``.
    """
    text = text.strip()
    if not text:
        raise SpecError("empty backend specification", expected="a name, hf:, onnx:, precomputed: or none")
    if text == "none":
        return BackendSpec("none")
    kind, colon, rest = text.partition(":")
    if colon and "?" not in kind:
        return _parse_with_kind(text, kind, rest)
    target, options = _split_options(text, text)
    return BackendSpec("name", target, options)


def _parse_with_kind(text: str, kind: str, rest: str) -> BackendSpec:
    if kind not in FILE_KINDS:
        raise SpecError(f"unknown kind '{kind}:' of backend", where=text, expected="hf:, onnx: or precomputed:")
    if _exists(rest):
        target, options = rest, dict[str, str]()
    else:
        target, options = _split_options(text, rest)
    if not target:
        example = {"hf": "Intel/dpt-large", "onnx": "model.onnx", "precomputed": "depth.npz"}[kind]
        raise SpecError("backend specification without a target", where=text, hint=f"Example: {kind}:{example}")
    return BackendSpec(cast(SpecKind, kind), target, options)


def _exists(text: str) -> bool:
    try:
        return expanded(text).exists()
    except (OSError, ValueError):
        return False  # too long, or not a path at all


def _split_options(text: str, rest: str) -> tuple[str, dict[str, str]]:
    target, mark, query = rest.partition("?")
    if not mark:
        return target, {}
    options: dict[str, str] = {}
    for pair in query.split("&"):
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise SpecError("bad option in backend specification", where=text, expected="key=value", got=repr(pair))
        if key in options:
            raise SpecError(f"option '{key}' is given twice", where=text)
        options[key] = value
    return target, options
