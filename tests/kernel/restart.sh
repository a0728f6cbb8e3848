#!/usr/bin/env bash
# Goal: handles outlive the daemon. Files that were open before it was killed read the same bytes from the
# next one, also when the clone was repointed in between; the client only waits.
# Method: guest_restart.py holds files; this script kills the daemon with SIGKILL and starts it again on the
# same port, first alone, then after a repoint, then with an orderly stop.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
. "$KERNEL_DIR/trees.sh"
need_kernel_client

make_versions "$WORK"
daemon_start
must mimeo image import base "$WORK/v1"
must mimeo clone create base --count 50 --name 'desk-{:04}'
guest_start -o actimeo=1 --export /clones/desk-0031 -- guest_restart.py

await held
daemon_stop KILL
tell killed
await asking
daemon_start
await read-again

must mimeo image import base "$WORK/v2"
must mimeo repoint base --to base@v2
daemon_stop KILL
daemon_start
tell repointed
await old-and-new

daemon_stop TERM
daemon_start
tell stopped-in-order
guest_wait "restarts"
check "no client name is lost: all clones are there" test "$(mimeo clone ls --json | grep -c '"desk-')" -ge 1
finish
