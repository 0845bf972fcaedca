"""Files that are whole at every moment, that grow without moving, and folders that last."""

from __future__ import annotations

import errno
import os

import pytest

from nst_lightning.callbacks.metrics import _rows_before
from nst_lightning.errors import UserNotice
from nst_lightning.files.appending import append
from nst_lightning.files.atomic import copy, sweep
from nst_lightning.files.folders import make_folder
from nst_lightning.files.lenient import only_the_file


def test_what_is_added_comes_behind_what_was_there_and_the_rest_of_a_failure_goes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12rest")
    assert append(path, b"345", 2) == 5
    assert path.read_bytes() == b"12345"


def test_what_cannot_be_flushed_was_not_added(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"12")

    def refuse(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        append(path, b"345", 2)
    assert path.read_bytes() == b"12"


def test_each_new_folder_is_flushed_into_the_one_above(tmp_path, monkeypatch):
    flushed, opened, true_open, true_fsync = [], {}, os.open, os.fsync

    def look(path, *arguments, **options):
        number = true_open(path, *arguments, **options)
        opened[number] = path
        return number

    def flush(number):
        flushed.append(opened[number])
        true_fsync(number)

    monkeypatch.setattr(os, "open", look)
    monkeypatch.setattr(os, "fsync", flush)
    assert make_folder(tmp_path / "a" / "b" / "c").is_dir()
    assert flushed == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    make_folder(tmp_path / "a" / "b")
    assert len(flushed) == 3


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        make_folder(tmp_path / "a" / "b")


def test_what_was_begun_is_swept_away_by_owner(tmp_path):
    names = [".nst-me0123456789abcdef.tmp", ".nst-you123456789abcdef.tmp", "mine.png", ".nst-me.png"]
    for name in names:
        (tmp_path / name).write_text("")
    sweep(tmp_path, "me")
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names[2:])
    sweep(tmp_path / "nowhere")


def test_a_copy_moves_aside_what_must_not_be_lost(tmp_path):
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    assert copy(tmp_path / "a", tmp_path / "b", lambda path: False) == tmp_path / "b_001"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"new", "b": b"new", "b_001": b"old"}


def test_a_failure_to_do_something_else_with_a_file_is_named():
    with pytest.warns(UserNotice, match="could not remove a: No such file or directory; the run goes on"):  # noqa: SIM117
        with only_the_file("a", "remove"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


TORN = [b"", b"3,0,1.", b"3,0,1.5,0.1", b"\0" * 20, b"3,0\r\n", b"\xff\xfe,1,2,3\r\n"]


@pytest.mark.parametrize("end", TORN, ids=str)
def test_rows_with_a_torn_end(tmp_path, end):
    path = tmp_path / "metrics.csv"
    whole = b"step,stage,loss,seconds\r\n1,0,2.5,0.1\r\n2,0,2.25,0.2\r\n"
    path.write_bytes(whole + end)
    assert _rows_before(path, 9) == whole
    assert _rows_before(path, 2) == whole[: whole.index(b"2,0")]


@pytest.mark.parametrize("begin", [b"", b"\0\0\0\0", b"not a table"])
def test_no_table_at_all(tmp_path, begin):
    (tmp_path / "metrics.csv").write_bytes(begin)
    assert not _rows_before(tmp_path / "metrics.csv", 9)
    assert not _rows_before(tmp_path / "nowhere.csv", 9)
