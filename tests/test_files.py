"""Files and folders are written all or nothing, whoever writes beside."""

import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from worldsim.errors import WorldError, printable
from worldsim.files import (
    HOST,
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
    dead = tmp_path / f".x.{HOST}-{2**22 + 1}-01234567.tmp"
    elsewhere, yesterday = (tmp_path / f".x.{i}1234567-{2**22 + 1}-01234567.tmp" for i in (0, 1))
    foreign = tmp_path / ".x.notes.tmp"
    mine = temporary_path(tmp_path / "x")
    for path in (dead, foreign, mine, elsewhere, yesterday):
        path.write_text("")
    os.utime(yesterday, (0, 0))
    clear_leftovers(tmp_path / "x")
    assert {*tmp_path.iterdir()} == {foreign, mine, elsewhere}


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


@pytest.mark.parametrize("dies", [False, True], ids=["once", "for-good"])
def test_a_disk_that_fails_anywhere_leaves_the_old_folder_or_the_new(
    tmp_path: Path, dies: bool
) -> None:
    """Every sync, rename, creation and removal fails in turn, once or from then on."""
    seen = []
    for good in count():
        place, failed = tmp_path / str(good) / "w", 0
        with atomic_folder(place) as part:
            (part / "file").write_text("old")
        with pytest.MonkeyPatch.context() as patch:
            left = good

            def counted(real: Callable[..., Any]) -> Callable[..., Any]:
                def call(*args: Any, **kwargs: Any) -> Any:
                    nonlocal left, failed
                    left -= 1
                    if left < 0 if dies else left == -1:
                        failed += 1
                        if not kwargs.get("ignore_errors"):
                            raise OSError(28, "no space left")
                        return None
                    return real(*args, **kwargs)

                return call

            for where, name in ((os, "fsync"), (os, "rename"), (os, "mkdir"), (shutil, "rmtree")):
                patch.setattr(where, name, counted(getattr(where, name)))
            try:
                with atomic_folder(place, overwrite=True) as part:
                    (part / "file").write_text("new")
                raised = False
            except OSError:
                raised = True
        if not failed:
            break
        seen.append((current_folder(place) / "file").read_text())
        assert raised or seen[-1] == "new"  # what was acknowledged is there
    assert set(seen) == {"old", "new"} and seen[-1] == "new" and len(seen) >= 8


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
    assert len(str(WorldError("x" * 10**6))) < 2100


def test_what_lies_aside_is_deleted_only_if_a_save_left_it(tmp_path: Path):
    folder, aside = tmp_path / "w", tmp_path / ".w.old"
    for place in (folder, aside):
        place.mkdir()
        (place / "a").write_text(place.name)

    def save() -> None:
        with atomic_folder(folder, overwrite=True) as part:
            (part / "a").write_text("new")

    save()
    assert (folder / "a").read_text() == "new" and not aside.exists()
    aside.mkdir()
    (aside / "thesis.tex").write_text("mine")
    with pytest.raises(OSError, match="expected what an earlier save left"):
        save()
    assert (aside / "thesis.tex").read_text() == "mine" and (folder / "a").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".w.old", "w"]
