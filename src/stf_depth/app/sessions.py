"""One folder for each visitor, under one private folder that goes when the server stops."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from stf_depth.app.jobs import JobQueue
from stf_depth.result import DepthResult

__all__ = ["Session", "Sessions"]


@dataclass
class Session:
    """A visitor: where the files are, what was uploaded, and the result that is shown."""

    key: str
    folder: Path
    uploaded: set[Path] = field(default_factory=set)
    result: DepthResult | None = None
    seen: float = field(default_factory=time.monotonic)


class Sessions:
    """Makes, finds and removes the visitors' folders.

    root: readable by this user alone. A folder's name is a digest of the visitor's key, which therefore cannot point
    anywhere else. A folder is removed only after its visitor's job has stopped. What the web framework keeps under
    ``uploads`` for its own use is removed by age.
    """

    def __init__(self, jobs: JobQueue, *, keep_seconds: float) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="stf-depth-app-")).resolve()
        self.uploads = self.root / "uploads"
        self.uploads.mkdir()
        self._jobs = jobs
        self._keep_seconds = keep_seconds
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def of(self, key: str) -> Session:
        """The visitor with this key; visitors who have not come for long are forgotten."""
        with self._lock:
            now = time.monotonic()
            late = [one.key for one in self._sessions.values() if now - one.seen > self._keep_seconds]
            if key not in self._sessions:
                folder = self.root / hashlib.sha256(key.encode()).hexdigest()[:24]
                folder.mkdir(exist_ok=True)
                self._sessions[key] = Session(key, folder)
            self._sessions[key].seen = now
            session = self._sessions[key]
        for old in late:
            if old != key and self._jobs.of(old) is None:
                self.forget(old)
        self._sweep_uploads()
        return session

    def _sweep_uploads(self) -> None:
        oldest = time.time() - self._keep_seconds
        for path in list(self.uploads.iterdir()):
            # The framework removes files of its own, too.
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    _remove(path)

    def forget(self, key: str) -> None:
        """Cancel the visitor's job and remove the folder as soon as it has stopped."""
        with self._lock:
            session = self._sessions.pop(key, None)
            # Equal uploads share one file.
            shared = {path for other in self._sessions.values() for path in other.uploaded}
        if session is None:
            return
        for path in session.uploaded - shared:
            _remove(path)
        ticket = self._jobs.of(key)
        if ticket is None:
            _remove(session.folder)
            return
        ticket.future.add_done_callback(lambda _: _remove(session.folder))
        ticket.cancel()

    def holds(self, path: Path) -> bool:
        """Whether a path, links followed, lies under the private folder."""
        return path.resolve().is_relative_to(self.root)

    def close(self) -> None:
        """Stop all jobs and remove everything."""
        self._jobs.close()
        _remove(self.root)


def _remove(path: Path) -> None:
    # Somebody may be downloading from it; what cannot be removed now goes with the root.
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
