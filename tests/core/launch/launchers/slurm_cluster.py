"""A real Slurm of one node with one core on loopback: munged, slurmctld and slurmd, ended with the test."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONF = """
ClusterName=llf
SlurmctldHost=localhost(127.0.0.1)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
CredType=cred/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
ReturnToService=2
JobRequeue=1
KillWait=10
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname={host} CPUs=1 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES State=UP
"""


def is_there():
    return os.geteuid() == 0 and all(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in PROGRAMS)


@contextmanager
def cluster(place):
    """Start it and yield the environment of its commands."""
    for name in ("state", "spool"):
        (place / name).mkdir(parents=True)
    key = place / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    place.chmod(0o755)
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    conf = place / "slurm.conf"
    conf.write_text(CONF.format(place=place, ports=ports, host=socket.gethostname()))
    (place / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    own = {name: value for name, value in os.environ.items() if name != "LLF_HOME"}  # a mark of the run's processes
    env = own | {"SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={place}/munge.socket",
             f"--pid-file={place}/munge.pid", f"--log-file={place}/munge.log", f"--seed-file={place}/seed"]  # fmt: skip
    started = []
    try:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D", "-N", "localhost"]):
            started.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            time.sleep(0.5)
        until = time.monotonic() + 60
        while "idle" not in (said := slurm(env, "sinfo", "--noheader", "--format=%T")):
            assert time.monotonic() < until, said
            assert all(one.poll() is None for one in started), [
                path.read_text()[-2000:] for path in place.glob("*.log")
            ]
            time.sleep(0.2)
        yield env
    finally:
        subprocess.run(["scancel", "--user=root"], env=env, check=False, capture_output=True)
        for one in reversed(started):
            one.terminate()
        for one in reversed(started):
            try:
                one.wait(20)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()


def slurm(env, *command):
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    return done.stdout + done.stderr
