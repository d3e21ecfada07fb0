"""Control groups of both versions, in hand-made folders."""

import os

import pytest

from llf_core.launch.environment import Cgroup, usable_cpus


@pytest.fixture
def system(tmp_path):
    """`system(own, {path: text}) -> Cgroup`."""

    def make(own, files):
        (tmp_path / "own").write_bytes(os.fsencode(own))
        for path, text in files.items():
            file = tmp_path / "fs" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return Cgroup(tmp_path / "fs", tmp_path / "own")

    return make


def test_version_2_takes_the_strictest_of_all_parents(system):
    cgroup = system(
        "0::/user/job\n",
        {
            "cpu.max": "max 100000\n", "user/cpu.max": "150000 100000\n", "user/job/cpu.max": "400000 100000\n",
            "user/memory.max": "8000000000\n", "user/job/memory.max": "max\n",
            "user/memory.events": "oom 9\noom_kill 9\n", "user/job/memory.events": "low 0\noom 3\noom_kill 2\n",
        },
    )  # fmt: skip
    assert cgroup.cpu_quota() == 1.5
    assert cgroup.memory_limit() == 8_000_000_000
    assert cgroup.oom_kills() == 2
    assert usable_cpus(cgroup) == 1


def test_a_group_may_have_a_name_in_any_encoding(system):
    cgroup = system("0::/\udce9\n", {"\udce9/cpu.max": "150000 100000\n"})
    assert cgroup.cpu_quota() == 1.5


def test_version_2_in_a_container_whose_mount_is_its_own_group(system):
    cgroup = system(
        "0::/docker/abcdef\n",
        {"cpu.max": "50000 100000\n", "memory.max": "1000\n", "memory.events": "oom_kill 1\n"},
    )
    assert (cgroup.cpu_quota(), cgroup.memory_limit(), cgroup.oom_kills()) == (0.5, 1000, 1)
    assert usable_cpus(cgroup) == 1


def test_version_1(system):
    cgroup = system(
        "4:memory:/job\n3:cpu,cpuacct:/job\n2:name=systemd:/\n0::/\n",
        {
            "cpu,cpuacct/job/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "memory/job/memory.limit_in_bytes": "4000\n", "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
        },
    )  # fmt: skip
    assert (cgroup.cpu_quota(), cgroup.memory_limit(), cgroup.oom_kills()) == (2.0, 4000, 5)


def test_no_limits_and_odd_files(system):
    cgroup = system(
        "1:cpu:/\n0::/\n",
        {"cpu.max": "max 100000\n", "memory.max": "max\n", "cpu/cpu.cfs_quota_us": "-1\n", "memory.events": "low 0\n"},
    )
    assert (cgroup.cpu_quota(), cgroup.memory_limit(), cgroup.oom_kills()) == (None, None, 0)
    assert usable_cpus(cgroup) == len(os.sched_getaffinity(0))
    garbage = system("0::/\n", {"cpu.max": "", "memory.max": "lots"})
    assert (garbage.cpu_quota(), garbage.memory_limit()) == (None, None)


def test_a_period_of_zero_is_no_limit(system):
    assert system("0::/\n", {"cpu.max": "100 0\n"}).cpu_quota() is None


@pytest.mark.parametrize("own", ["none", "."])
def test_groups_that_cannot_be_read(tmp_path, own):
    cgroup = Cgroup(tmp_path, tmp_path / own)
    assert (cgroup.cpu_quota(), cgroup.memory_limit(), cgroup.oom_kills()) == (None, None, 0)


def test_a_group_never_reaches_outside_its_mount(system, tmp_path):
    (tmp_path / "cpu.max").write_text("1 1\n")
    assert system("0::/a\n", {"a/cpu.max": "300000 100000\n"}).cpu_quota() == 3.0


def test_of_this_machine():
    assert 1 <= usable_cpus() <= os.cpu_count()


def test_room_is_the_least_of_all_groups_and_file_caches_do_not_count(system):
    cgroup = system(
        "0::/user/job\n",
        {
            "user/memory.max": "9000\n", "user/memory.current": "5000\n",
            "user/memory.stat": "anon 1\ninactive_file 700\n",
            "user/job/memory.max": "8000\n", "user/job/memory.current": "100\n", "memory.current": "6000\n",
        },
    )  # fmt: skip
    assert cgroup.memory_left() == 9000 - 5000 + 700


def test_room_in_version_1_counts_the_caches_of_children(system):
    cgroup = system(
        "4:memory:/job\n",
        {
            "memory/job/memory.limit_in_bytes": "4000\n", "memory/job/memory.usage_in_bytes": "3000\n",
            "memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.usage_in_bytes": "7000\n",
        },
    )  # fmt: skip
    assert cgroup.memory_left() == 1500


def test_room_without_a_limit_is_not_known(system):
    assert system("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}).memory_left() is None
