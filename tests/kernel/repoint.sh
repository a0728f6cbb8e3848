#!/usr/bin/env bash
# Goal: a repoint under a live mount does what docs/semantics.md promises. An open or mapped file keeps its
# bytes, a fresh lookup sees the new version, what did not change keeps handle, fileid and ctime and is read
# from the client's own cache, and nothing is ever stale; the same on the way back.
# Method: guest_repoint.py holds files, a map and a working directory, while this script imports a patched
# tree and switches all clones to it and back.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
. "$KERNEL_DIR/trees.sh"
CLONES=${CLONES:-200}
need_kernel_client

make_versions "$WORK"
daemon_start
must mimeo image import base "$WORK/v1"
must mimeo clone create base --count "$CLONES" --name 'desk-{:04}' --label pool=test
# One second of attribute cache: long enough to be one, short enough to wait for.
guest_start -o actimeo=1 --export /clones/desk-0007 -- guest_repoint.py

await held
must mimeo image import base "$WORK/v2"
must mimeo repoint base --to base@v2
tell repointed

await checked
must mimeo repoint base --to base@v1
tell back
guest_wait "repoint and back"

check "each clone is back on v1" /usr/bin/python3 - "$CLONES" <(mimeo clone ls --json) <<'P'
import json, sys
want, listed = int(sys.argv[1]), json.load(open(sys.argv[2]))
clones = listed["clones"] if isinstance(listed, dict) else listed
assert len(clones) == want, f"{len(clones)} clones, not {want}"
assert {c["version"] for c in clones} == {"base@v1"}, {c["version"] for c in clones}
P
finish
