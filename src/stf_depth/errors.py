"""Every error that STF-Depth raises on purpose.

    StfDepthError
    ├── UsageError               the caller asked for something that does not exist (exit code 2)
    │   ├── ConfigError          unknown key, preset or value in a configuration
    │   └── SpecError            a backend specification that cannot be parsed or is not registered
    ├── InputError               an input file or folder cannot be used
    │   ├── InputNotFoundError   nothing at that path
    │   ├── UnreadableVideoError not a video, damaged beyond the first frame, or no frames at all
    │   └── SequenceError        an image sequence with gaps, mixed sizes or no images
    ├── DepthError               depth of the wrong kind or shape
    │   ├── AmbiguityError       two depths whose representation or ambiguity do not mix
    │   └── ShapeError           arrays whose shapes or dtypes do not agree
    ├── ModelError               a network cannot be used
    │   ├── WeightsError         weights neither in the cache nor downloadable, or damaged
    │   ├── CheckpointError      a checkpoint of another task or architecture
    │   └── LicenceError         weights refused under ``--commercial``
    ├── MissingExtraError        an optional dependency is not installed
    ├── DeviceError              the requested device is absent or fails
    │   └── DeviceMemoryError    the device is out of memory
    ├── CacheError               a cache that cannot be used
    │   ├── LockedError          another run holds the folder
    │   └── UntrustedPickleError a pickle holding anything but arrays and builtins
    ├── OutputError              an output folder or file cannot be written
    │   └── ExportError          some of several exports failed, the others are done
    └── GeometryError            a camera or structure computation without a solution

A message is one line: what happened, where, what was expected, what was found, what to do.
"""

from __future__ import annotations

__all__ = [
    "AmbiguityError",
    "CacheError",
    "CheckpointError",
    "ConfigError",
    "DepthError",
    "DeviceError",
    "DeviceMemoryError",
    "ExportError",
    "GeometryError",
    "InputError",
    "InputNotFoundError",
    "LicenceError",
    "LockedError",
    "MissingExtraError",
    "ModelError",
    "OutputError",
    "SequenceError",
    "ShapeError",
    "SpecError",
    "StfDepthError",
    "UnreadableVideoError",
    "UntrustedPickleError",
    "UsageError",
    "WeightsError",
]


class StfDepthError(Exception):
    """Base of all errors raised on purpose.

    ``str(error)`` is ``"<what>: <where> (expected <expected>, got <got>). <hint>"`` with the absent
    parts left out, always on one line.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        got: object = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.got = got
        self.hint = hint
        super().__init__(self._message())

    def _message(self) -> str:
        text = self.what
        if self.where is not None:
            text += f": {self.where}"
        pairs = (("expected", self.expected), ("got", self.got))
        found = [f"{name} {value}" for name, value in pairs if value is not None]
        if found:
            text += f" ({', '.join(found)})"
        if self.hint:
            text += f". {self.hint}"
        return " ".join(text.split())

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not survive a process border by default.
        return _rebuild, (type(self), self.what, self.where, self.expected, self.got, self.hint)


def _rebuild(
    kind: type[StfDepthError], what: str, where: object, expected: object, got: object, hint: str | None
) -> StfDepthError:
    return kind(what, where=where, expected=expected, got=got, hint=hint)


class UsageError(StfDepthError):
    """The caller asked for something that does not exist."""


class ConfigError(UsageError):
    """Unknown key, preset or value in a configuration."""


class SpecError(UsageError):
    """A backend specification that cannot be parsed or names nothing registered."""


class InputError(StfDepthError):
    """An input file or folder cannot be used."""


class InputNotFoundError(InputError):
    """Nothing at the given path."""


class UnreadableVideoError(InputError):
    """Not a video, damaged beyond its first frame, or without any frame."""


class SequenceError(InputError):
    """An image sequence with gaps, mixed sizes or no images."""


class DepthError(StfDepthError):
    """Depth of the wrong kind or shape."""


class AmbiguityError(DepthError):
    """Two depths whose representation or ambiguity do not mix."""


class ShapeError(DepthError):
    """Arrays whose shapes or dtypes do not agree."""


class ModelError(StfDepthError):
    """A network cannot be used."""


class WeightsError(ModelError):
    """Weights that are neither cached nor downloadable, or damaged."""


class CheckpointError(ModelError):
    """A checkpoint of another task or architecture."""


class LicenceError(ModelError):
    """Weights refused because commercial use was requested."""


class MissingExtraError(StfDepthError):
    """An optional dependency is not installed."""

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtraError:
        """Name the exact install command for ``package`` from the extra ``extra``."""
        return cls(f"{package} is not installed", hint=f"Run: pip install 'stf-depth[{extra}]'")


class DeviceError(StfDepthError):
    """The requested device is absent or fails."""


class DeviceMemoryError(DeviceError):
    """The device ran out of memory; fewer frames at once may fit."""


class CacheError(StfDepthError):
    """A cache that cannot be used."""


class LockedError(CacheError):
    """Another run holds the folder."""


class UntrustedPickleError(CacheError):
    """A pickle that holds anything but NumPy arrays and builtins."""


class OutputError(StfDepthError):
    """An output folder or file cannot be written."""


class ExportError(OutputError):
    """Some of several exports failed; the others are done."""


class GeometryError(StfDepthError):
    """A camera or structure computation without a solution."""
