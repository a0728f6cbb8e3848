"""In a guest: read on over restarts of the daemon. The host's part is restart.sh."""
import os

from guest import MNT, check, digest, drop_caches, handle, names, ops, run, same, say, until, wait_for


def main():
    paths = names(MNT)
    data = {p: digest(p) for p in paths if not os.path.islink(p)}
    handles = {p: handle(p) for p in paths}
    held = {p: os.open(p, os.O_RDONLY) for p in data if "/change/" in p or p.endswith(("/keep/big", "/sub/kept"))}

    def check_held(when):
        drop_caches()
        reads = ops("READ")
        wrong = [p for p, fd in held.items() if digest(fd) != data[p]]
        check(f"{when}: {len(held)} open files read the same bytes", not wrong, wrong)
        check(f"{when}: they came from the server", ops("READ") > reads, "no READ was sent")

    say("held")
    wait_for("killed")
    drop_caches()
    say("asking")
    check_held("killed")
    moved = [p for p in paths if handle(p) != handles[p]]
    check(f"killed: {len(paths)} paths have the same handles", not moved, moved[:3])
    same("killed: the whole tree reads the same", {p: digest(p) for p in data} == data, True)
    say("read-again")

    wait_for("repointed")
    check_held("repointed, then killed")
    small = os.path.join(MNT, "change/small")
    until(lambda: digest(small) != data[small])
    same("repointed, then killed: a fresh open sees v2", open(small).read(), "second version, and longer\n")
    moved = [p for p in paths if "/keep/" in p and handle(p) != handles[p]]
    check("repointed, then killed: unchanged files have the same handles", not moved, moved[:3])
    say("old-and-new")

    wait_for("stopped-in-order")
    check_held("stopped in order")
    same("stopped in order: a fresh open sees v2", open(small).read(), "second version, and longer\n")


run(main)
