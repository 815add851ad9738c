"""Files and folders are written all or nothing, whoever writes beside."""

import os
from pathlib import Path

import pytest

from worldsim.errors import WorldError, printable
from worldsim.files import (
    atomic_folder,
    atomic_path,
    clear_leftovers,
    current_folder,
    read_bytes,
    temporary_path,
    write_text,
)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "x") as part:
        part.write_text("half")
        raise RuntimeError
    assert (tmp_path / "x").read_text() == "old" and os.listdir(tmp_path) == ["x"]


def test_two_writers_of_one_name_do_not_meet(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "x") as first, atomic_path(tmp_path / "x") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "x").read_text() == "first" and os.listdir(tmp_path) == ["x"]


def test_leftovers_of_the_dead_are_cleared_and_of_the_living_kept(tmp_path: Path) -> None:
    dead = tmp_path / f".x.{2**22 + 1}-01234567.tmp"
    foreign = tmp_path / ".x.notes.tmp"
    mine = temporary_path(tmp_path / "x")
    for path in (dead, foreign, mine):
        path.write_text("")
    clear_leftovers(tmp_path / "x")
    assert {p.name for p in tmp_path.iterdir()} == {foreign.name, mine.name}


def test_a_folder_takes_its_name_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "a" / "w"
    for text in ("old", "new"):
        with atomic_folder(place, overwrite=True) as part:
            (part / "file").write_text(text)
    assert (place / "file").read_text() == "new" and os.listdir(place.parent) == ["w"]
    with pytest.raises(OSError), atomic_folder(place) as part:
        (part / "file").write_text("not asked to overwrite")
    with pytest.raises(RuntimeError), atomic_folder(place, overwrite=True) as part:
        raise RuntimeError
    assert (place / "file").read_text() == "new" and os.listdir(place.parent) == ["w"]
    place.rename(place.with_name(".w.old"))  # killed between the two renames
    assert (current_folder(place) / "file").read_text() == "new"


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"1234")
    assert read_bytes(path, 4) == b"1234"
    with pytest.raises(OSError, match="4 bytes, more than the 3"):
        read_bytes(path, 3)
    with pytest.raises(OSError, match="no regular file"):
        read_bytes(Path("/dev/zero"), 3)


def test_messages_are_fit_to_print() -> None:
    assert str(WorldError("name \x1b[31m\u202e\r\n\udcff ü漢")) == (
        "name \\x1b[31m\\u202e\\r\\n\\udcff ü漢"
    )
    assert printable("plain ü") == "plain ü"
