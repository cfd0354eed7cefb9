from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fundus_runtime.atomic import atomic_text, require_writable
from fundus_runtime.errors import ResultError


def write(path: Path, text: str, *, force: bool = False) -> None:
    with atomic_text(path, force=force) as stream:
        stream.write(text)


def test_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    with atomic_text(target, force=False) as stream:
        stream.write("first\n")
        assert not target.exists()
    assert target.read_text("utf-8") == "first\n"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_failure_inside_leaves_everything_as_it_was(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "out.txt"
    write(target, "before")

    def fail_halfway() -> None:
        with atomic_text(target, force=True) as stream:
            stream.write("half of")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_existing_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    write(target, "before")
    with pytest.raises(ResultError, match="give --force"):
        write(target, "after")
    assert target.read_text() == "before"
    write(target, "after", force=True)
    assert target.read_text() == "after"


def test_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"

    def write_while_another_does() -> None:
        with atomic_text(target, force=False) as stream:
            stream.write("ours")
            target.write_text("theirs")

    with pytest.raises(ResultError, match="exists already"):
        write_while_another_does()
    assert target.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_impossible_places_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="does not exist"):
        require_writable(tmp_path / "none" / "out.txt", force=False)
    with pytest.raises(ResultError, match="is a folder"):
        require_writable(tmp_path, force=True)
    with pytest.raises(ResultError, match=r"cannot be written: .*long"):
        require_writable(tmp_path / ("a" * 300), force=False)


def test_device_or_pipe_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(ResultError, match="no ordinary file"):
            write(place, "text", force=True)


def test_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to("file.txt")
    write(tmp_path / "link.txt", "text")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "file.txt").read_text() == "text"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_rights_is_refused_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ResultError, match="cannot be written"):
        require_writable(tmp_path / "out.txt", force=False)


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_full_disk_is_a_typed_error_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from fundus_runtime.atomic import atomic_text\n"
        "from fundus_runtime.errors import ResultError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    with atomic_text(sys.argv[1], force=False) as stream:\n"
        "        stream.write('x' * 1_000_000)\n"
        "except ResultError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-B", "-c", code, str(tmp_path / "out.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert "nothing was written" in done.stdout
    assert list(tmp_path.iterdir()) == []
