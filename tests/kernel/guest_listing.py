"""In a guest: list a large directory while it is switched. The host's part is listing.sh."""
import os
from collections import Counter

from guest import check, drop_caches, getdents, ops, run, same, say, wait_for

KEPT = {b"kept-%05d" % n for n in range(1, 20001)}
PIECE = 4096  # bytes of one getdents64: about a hundred names
STOP_AT = (300, 6000, 13000, 20000)


def read_all(fd, seen):
    while piece := getdents(fd, PIECE):
        seen.update(name for _, _, name in piece)


def main():
    step = 0
    for mount in ("/mnt/plain", "/mnt/plus"):
        for stop in STOP_AT:
            step += 1
            seen = Counter()
            fd = os.open(mount + "/dir", os.O_RDONLY | os.O_DIRECTORY)
            while sum(seen.values()) < stop:
                seen.update(name for _, _, name in getdents(fd, PIECE))
            say(f"stopped-{step}")
            wait_for(f"switched-{step}")
            drop_caches()
            asked = ops("READDIR", mount) + ops("READDIRPLUS", mount)
            read_all(fd, seen)
            os.close(fd)
            what = f"{mount[5:]}, switched after {stop}"
            check(f"{what}: the rest came from the server", ops("READDIR", mount) + ops("READDIRPLUS", mount) > asked)
            same(f"{what}: each kept name is there", len(KEPT - seen.keys()), 0)
            same(f"{what}: no name came twice", [n for n, times in seen.items() if times > 1][:5], [])
            strange = [n for n in seen.keys() - KEPT if not n.startswith((b"one-", b"two-")) and n not in (b".", b"..")]
            same(f"{what}: no name was invented", strange, [])


run(main)
