"""What a run that was killed left on this machine."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import local_cluster
from local_cluster import GROUPS, LocalCluster


@contextmanager
def cluster_of(process: int) -> Iterator[subprocess.Popen[bytes]]:
    """A program and a folder as the cluster has them that the tests of a process made."""
    name, folder = f"{GROUPS}{process}", local_cluster.folder_of(process)
    local_cluster.make_groups(name)
    folder.mkdir()
    (folder / "logs").touch()
    with subprocess.Popen(["sleep", "600"]) as program:
        for group in local_cluster.groups(name):
            (group / "cgroup.procs").write_text(str(program.pid))
        try:
            yield program
        finally:
            local_cluster.end_group(name)
            shutil.rmtree(folder, ignore_errors=True)


def test_a_cluster_whose_tests_were_killed_is_ended(here: LocalCluster) -> None:
    tests = subprocess.Popen(["true"])
    tests.wait()
    with cluster_of(tests.pid) as left:
        local_cluster.end_left_behind()
        assert left.wait(10)
        assert not any(each.exists() for each in local_cluster.groups(f"{GROUPS}{tests.pid}"))
        assert not local_cluster.folder_of(tests.pid).exists()


def test_a_cluster_at_work_is_left_alone(here: LocalCluster) -> None:
    with subprocess.Popen(["sleep", "600"]) as tests:
        with cluster_of(tests.pid) as program:
            local_cluster.end_left_behind()
            assert program.poll() is None
            assert local_cluster.folder_of(tests.pid).exists()
        tests.kill()
