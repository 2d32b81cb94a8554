"""Cache keys: key = SHA-256(canonical JSON of everything that decides a stage's output).

A stage's key contains its upstream keys, so that a change anywhere upstream changes every key below it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["SCHEMA_VERSION", "digest_json", "stage_key"]

# Raised when the layout of a stage on disk changes, which makes every older cache a miss.
SCHEMA_VERSION = 1


def digest_json(values: Any) -> str:
    """SHA-256 of ``values`` as canonical JSON: sorted keys, no white space, non-finite numbers refused."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def stage_key(
    stage: str,
    *,
    version: int,
    input_digest: str,
    config: Mapping[str, Any],
    weights_digest: str = "",
    upstream: Sequence[str] = (),
) -> str:
    """Key of one stage for one input: 64 hexadecimal digits.

    config is the full resolved configuration of the stage, defaults included, so that a changed default is a
    changed key.
    """
    return digest_json(
        {
            "schema": SCHEMA_VERSION,
            "stage": stage,
            "version": version,
            "input": input_digest,
            "config": dict(config),
            "weights": weights_digest,
            "upstream": list(upstream),
        }
    )
