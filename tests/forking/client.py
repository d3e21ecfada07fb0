"""What stands for `python`: it has a server that has loaded torch fork an interpreter, and stands for that one.

`client.py SOCKET REAL_PYTHON STAND_IN [-P] (-m MODULE | -c CODE | SCRIPT) ARGUMENT…`. Sent is a line of JSON with
arguments, `sys.executable` (the stand-in), environment, working directory and umask, beside the three standard streams;
then the number of each signal that comes, as a byte. What comes back is the exit code, negative for a signal.

A supervisor outlives whoever starts it, so it is a real interpreter. The trainer that it starts is forked again.
"""

import array
import json
import os
import signal
import socket
import sys

SUPERVISOR = "llf_core.launch.supervisor_process"
SUPERVISE = f"""
import runpy, sys
sys.executable = sys.argv.pop(1)
runpy.run_module({SUPERVISOR!r}, run_name="__main__", alter_sys=True)
"""


def main():
    address, real, stand_in, *arguments = sys.argv[1:]
    if arguments[:3] == ["-P", "-m", SUPERVISOR]:
        os.execv(real, [real, "-P", "-c", SUPERVISE, stand_in, *arguments[3:]])
    if not arguments or arguments[0] in {"-I", "-S", "-E", "-"}:
        os.execv(real, [real, *arguments])
    umask = os.umask(0)
    os.umask(umask)
    asked = {
        "arguments": arguments, "executable": stand_in, "env": dict(os.environ), "cwd": os.getcwd(), "umask": umask,
    }  # fmt: skip
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)  # one that comes now is sent behind the line, not within it
        for number in numbers:
            signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
        line = json.dumps(asked).encode() + b"\n"
        sent = connection.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
        connection.sendall(line[sent:])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        said = b""
        while not said.endswith(b"\n"):
            more = connection.recv(64)
            if not more:
                os._exit(70)
            said += more
    code = int(said)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
