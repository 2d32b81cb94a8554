"""Kill -9 at random moments; the thorough version is benchmarks/kill.py by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_eight_kills_lose_nothing() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "8", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["kills"] >= 8
    assert report["holds"], done.stdout
