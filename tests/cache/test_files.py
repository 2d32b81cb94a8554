"""Files appear whole or not at all, and folders belong to one run at a time."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from stf_depth.cache.files import PARTIAL, atomic_path, output_errors, read_json, remove_tree, write_json
from stf_depth.cache.lock import folder_lock
from stf_depth.errors import LockedError, OutputError


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})
    with pytest.raises(RuntimeError), atomic_path(target) as partial:
        partial.write_text("half")
        raise RuntimeError("stop")
    assert read_json(target) == {"old": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_unreadable_json_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert read_json(path) is None
    path.write_bytes(b"\xff{")
    assert read_json(path) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_refusals_of_the_system_become_advice(code: int, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, output_errors(tmp_path):
        raise OSError(code, "no")
    assert caught.value.hint


def test_other_os_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="odd") as caught, output_errors(tmp_path):
        raise OSError(errno.EBADF, "odd")
    assert not isinstance(caught.value, OutputError)


def test_remove_tree_accepts_nothing_there(tmp_path: Path) -> None:
    remove_tree(tmp_path / "absent")


def test_second_process_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from stf_depth.cache.lock import folder_lock\n"
        "from stf_depth.errors import LockedError\n"
        "try:\n    with folder_lock(Path(sys.argv[1])): print('held')\n"
        "except LockedError as error: print('refused', error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with folder_lock(tmp_path):
        during = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert during.startswith("refused another run")
    assert after.strip() == "held"


def test_lock_clears_leftovers(tmp_path: Path) -> None:
    (tmp_path / f"{PARTIAL}1-a.json").write_text("half")
    (tmp_path / f"{PARTIAL}2-folder").mkdir()
    with folder_lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_lock_is_not_reentrant_across_threads_of_one_run(tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(LockedError), folder_lock(tmp_path):
        pass


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc")
def test_a_folder_that_cannot_be_made_is_one_clear_error() -> None:
    with pytest.raises(OutputError, match="cannot be made"), folder_lock(Path("/proc/none/out")):
        pass


def test_a_folder_made_for_nothing_goes_again(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine", "used"):
        with pytest.raises(ValueError), folder_lock(tmp_path / name):
            if name == "used":
                (tmp_path / name / "part").touch()
            raise ValueError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "used"]
    with folder_lock(tmp_path / "new"):
        pass
    assert (tmp_path / "new").is_dir()
