"""What the programs that run in a guest share: steps, checks, and what the client's kernel knows.

A step is an empty file in $SHARE, which host and guest both see. Checks are printed as lines that
the host counts. Every wait is bounded.
"""
import ctypes
import errno
import hashlib
import os
import sys
import time
import traceback

SHARE = os.environ.get("SHARE", "/run/share")
MNT = os.environ.get("MNT", "/mnt")
STEP_LIMIT_S = 120
CACHE_LIMIT_S = 60  # far above the attribute cache's time in the mounts used here

_libc = ctypes.CDLL(None, use_errno=True)
_failed = 0


def check(name, good, why=""):
    global _failed
    if good:
        print(f"ok    {name}", flush=True)
    else:
        _failed += 1
        print(f"FAIL  {name}: {why}", flush=True)


def same(name, got, want):
    check(name, got == want, f"got {got!r:.300}, want {want!r:.300}")


def say(step):
    open(os.path.join(SHARE, step), "x").close()


def wait_for(step):
    until(lambda: os.path.exists(os.path.join(SHARE, step)), STEP_LIMIT_S, f"the host's '{step}'")


def until(done, limit_s=CACHE_LIMIT_S, what="the client's cache to expire"):
    end = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {limit_s} s for {what}")
        time.sleep(0.05)


def run(main):
    """Run the program; an ESTALE or any other surprise is a failed check."""
    try:
        main()
    except OSError as e:
        traceback.print_exc()
        check("no surprise from the client", False, f"{errno.errorcode.get(e.errno, e.errno)}: {e}")
    except Exception as e:
        traceback.print_exc()
        check("no surprise", False, repr(e))
    sys.exit(1 if _failed else 0)


def drop_caches():
    """Forget clean pages and unused names, so that the next access asks the server."""
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3\n")


def digest(path_or_fd):
    h = hashlib.blake2b(digest_size=16)
    fd = path_or_fd if isinstance(path_or_fd, int) else os.open(path_or_fd, os.O_RDONLY)
    try:
        offset = 0
        while block := os.pread(fd, 1 << 20, offset):
            h.update(block)
            offset += len(block)
    finally:
        if fd is not path_or_fd:
            os.close(fd)
    return h.hexdigest()


def ops(procedure, mount=None):
    """How often the client has called `procedure` on the mount, by its own count."""
    here, count = False, 0
    with open("/proc/self/mountstats") as f:
        for line in f:
            words = line.split()
            if words[:1] == ["device"]:
                here = words[4] == (mount or MNT)
            elif here and words[:1] == [procedure + ":"]:
                count += int(words[1])
    return count


class _FileHandle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]


# In the handle that the client's kernel gives to user space: file id (8 bytes) and type (4), then the
# length (2) and the bytes of the server's own handle.
_SERVER_HANDLE_AT = 12


def handle(path):
    """The NFS handle of `path`, as the server gave it to the client."""
    h, mount_id = _FileHandle(bytes=128), ctypes.c_int()
    if _libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(h), ctypes.byref(mount_id), 0) != 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at", path)
    raw = bytes(h.data)
    size = int.from_bytes(raw[_SERVER_HANDLE_AT:_SERVER_HANDLE_AT + 2], sys.byteorder)
    return raw[_SERVER_HANDLE_AT + 2:_SERVER_HANDLE_AT + 2 + size].hex()


def identity(path):
    """What must stay while an object does: handle, file id, and the ctime that clients compare."""
    st = os.lstat(path)
    return (handle(path), st.st_ino, st.st_ctime_ns)


def names(folder):
    return sorted(os.path.join(d, f) for d, _, files in os.walk(folder) for f in files)


def getdents(fd, size):
    """One getdents64: [(inode, cookie, name)], empty at the end."""
    buf = ctypes.create_string_buffer(size)
    n = _libc.getdents64(fd, buf, size)
    if n < 0:
        raise OSError(ctypes.get_errno(), "getdents64")
    raw, out, at = buf.raw, [], 0
    while at < n:
        length = int.from_bytes(raw[at + 16:at + 18], sys.byteorder)
        name = raw[at + 19:at + length].split(b"\0", 1)[0]
        out.append((int.from_bytes(raw[at:at + 8], sys.byteorder), int.from_bytes(raw[at + 8:at + 16], sys.byteorder), name))
        at += length
    return out
