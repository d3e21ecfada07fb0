"""What stands for `python`: it has a server that has loaded torch fork an interpreter, and stands for that one.

`client.py SOCKET REAL_PYTHON [-P] (-m MODULE | -c CODE | SCRIPT) ARGUMENT…`. Sent is a line of JSON with arguments,
environment, working directory and umask, beside the three standard streams; then the number of each signal that
comes, as a byte. What comes back is the exit code, negative for a signal.
"""

import array
import json
import os
import signal
import socket
import sys

OWN = ("llf_core.launch.supervisor_process",)  # outlives whoever starts it


def main():
    address, real, *arguments = sys.argv[1:]
    if not arguments or any(name in arguments for name in OWN) or arguments[0] in {"-I", "-S", "-E", "-"}:
        os.execv(real, [real, *arguments])
    umask = os.umask(0)
    os.umask(umask)
    asked = {"arguments": arguments, "env": dict(os.environ), "cwd": os.getcwd(), "umask": umask}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
        line = json.dumps(asked).encode() + b"\n"
        sent = connection.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
        connection.sendall(line[sent:])
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
