"""What a dataset adapter is: facts for the table, and a function from a root folder to clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from stf_depth.errors import InputNotFoundError, UsageError
from stf_depth.evaluation.clips import GroundTruthClip

__all__ = ["Dataset", "Setting", "existing"]


class Setting(StrEnum):
    """Which clips and frames of a dataset are scored."""

    SHORT = "short"  # the published short clips
    LONG = "long"  # the published long clips
    TAE = "tae"  # the published setting for the temporal alignment error
    ALL = "all"  # every clip that is there, every frame


@dataclass(frozen=True)
class Dataset:
    """One dataset in its native layout.

    find: root and setting -> clips. settings: those with a published meaning, in order of preference, then ``all``.
    """

    name: str
    title: str
    licence: str
    source: str
    settings: tuple[Setting, ...]
    find: Callable[[Path, Setting], list[GroundTruthClip]]

    def clips(self, root: Path, setting: Setting | str | None = None) -> list[GroundTruthClip]:
        """The clips under ``root``; raises UsageError for a setting without meaning here."""
        if setting is not None and setting not in list(self.settings):
            raise UsageError(f"no setting '{setting}' for {self.name}", expected=", ".join(self.settings))
        wanted = self.settings[0] if setting is None else Setting(setting)
        if not root.is_dir():
            raise InputNotFoundError("no dataset folder", where=root)
        return self.find(root, wanted)


def existing(root: Path, names: Sequence[str], *, dataset: str) -> list[Path]:
    """The folders ``root/name``; raises InputNotFoundError naming all that are absent."""
    absent = [name for name in names if not (root / name).is_dir()]
    if absent:
        hint = "Score what is there with --setting all"
        raise InputNotFoundError(
            f"{dataset}: clips of the published list are absent", where=root, got=absent, hint=hint
        )
    return [root / name for name in names]
