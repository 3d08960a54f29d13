"""A link between two network namespaces that takes its time: every packet arrives so many milliseconds later.

    python slow_link.py NAMESPACE DEVICE NAMESPACE DEVICE DELAY_MS

Makes both (Ethernet) devices, one in each namespace, carries packets between them, and runs until it is ended. Needs
root.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from pathlib import Path

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def tap(namespace: str, device: str) -> int:
    """A new device in this namespace; the descriptor that its packets are read from and written to."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{namespace}").open() as place:
        if libc.setns(place.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def carry(one: int, other: int, delay_s: float) -> None:
    """Both directions, in order, for ever."""
    waiting: deque[tuple[float, int, bytes]] = deque()
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([one, other], [], [], pause)
        for source in ready:
            packet = os.read(source, 65536)
            waiting.append((time.monotonic() + delay_s, other if source == one else one, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, target, packet = waiting.popleft()
            try:
                os.write(target, packet)
            except OSError:  # not up yet, or full: networks lose packets
                continue


if __name__ == "__main__":
    ends = [tap(*sys.argv[1:3]), tap(*sys.argv[3:5])]
    print("ready", flush=True)
    carry(*ends, float(sys.argv[5]) / 1e3)
