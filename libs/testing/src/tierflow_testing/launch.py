"""Becomes another program that dies with its parent, as another user if asked; run as a script by `children`.

A fork hook in Python would do the same but is unsafe in a process with gRPC threads. The order matters: a change of user clears the death signal.

Usage: launch.py PARENT_PID DEATH_SIGNAL UID GID PROGRAM ARGUMENT...   (UID -1: stay who we are)
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def launch(parent: int, death_signal: int, uid: int, gid: int, command: list[str]) -> None:
    """Replaces this process by the command; returns only by an exception."""
    if uid >= 0:
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent ended before its child began")
    os.execvp(command[0], command)


if __name__ == "__main__":
    launch(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
