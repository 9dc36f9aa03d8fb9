"""A network that prints in every way there is, at import, when made, when run and when the program ends."""

import atexit
import ctypes
import os
import subprocess
import sys

from torch import nn

C = ctypes.CDLL(None)


def shout(when: str) -> None:
    print(f"python {when}")  # noqa: T201
    if sys.__stdout__ is not None:
        sys.__stdout__.write(f"python's own stdout {when}\n")
    os.write(1, f"descriptor {when}\n".encode())
    C.puts(f"C library {when}".encode())  # kept in C's own buffer
    subprocess.run(["echo", f"child {when}"], check=True)


shout("import")
atexit.register(shout, "exit")


class Loud(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shout("constructor")
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        shout("forward")
        return self.conv(x)
