"""Reading the log of an engine."""

from __future__ import annotations

from pathlib import Path

from paddock.launcher.replicas import logs
from paddock.launcher.replicas.logs import read_after, read_tail


def test_tail_is_the_last_lines_that_are_not_empty(tmp_path: Path) -> None:
    """Empty lines do not count, bytes that are no text do no harm, and no file is no line."""
    path = tmp_path / "log"
    assert read_tail(path, 3) == []
    path.write_bytes(b"one\n\ntwo \nthr\xffee\n")
    assert read_tail(path, 2) == ["two", "thr\ufffdee"]


def test_tail_of_a_huge_log_reads_its_end_only(tmp_path: Path) -> None:
    """Of a log longer than a piece the lines come from its end."""
    path = tmp_path / "log"
    path.write_text("x" * 200_000 + "\nlast\n")
    assert read_tail(path, 1) == ["last"]


def test_following_gives_each_line_once_and_whole(tmp_path: Path) -> None:
    """A line that is being written waits for its end; nothing is given twice."""
    path = tmp_path / "log"
    assert read_after(path, 0) == (0, "")
    path.write_text("one\ntw")
    offset, text = read_after(path, 0)
    assert text == "one\n"
    path.write_text("one\ntwo\n")
    assert read_after(path, offset) == (8, "two\n")
    assert read_after(path, 8) == (8, "")


def test_following_survives_a_new_file_and_an_endless_line(tmp_path: Path) -> None:
    """A shorter file is read from its beginning; a line without an end comes in pieces."""
    path = tmp_path / "log"
    path.write_text("new\n")
    assert read_after(path, 100) == (4, "new\n")
    path.write_text("y" * (logs.PIECE_BYTES + 5))
    assert read_after(path, 0) == (logs.PIECE_BYTES, "y" * logs.PIECE_BYTES)
