"""What the machine tells of itself."""

from __future__ import annotations

from pathlib import Path

from paddock.launcher.hosts.machine import oom_kills


def test_killings_for_memory_are_counted_where_they_are_told(tmp_path: Path) -> None:
    """In the process's own control group; else on the whole machine; else there are none."""
    assert oom_kills(tmp_path) == 0
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    assert oom_kills(tmp_path) == 0
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 7\n")
    assert oom_kills(tmp_path) == 7
    group = tmp_path / "sys/fs/cgroup/a/b"
    group.mkdir(parents=True)
    (group / "memory.events").write_text("low 0\noom 4\noom_kill 3\n")
    assert oom_kills(tmp_path) == 3
