#!/usr/bin/env bash
# Goal: what a kernel client has fsynced outlives SIGKILL of the daemon in the middle of its fsync loop, and
# the client sees no error: it waits, sends again what it was not answered, and what it did once is done once.
# Method: guest_crash.py appends records with fsync in several files and makes, renames and removes names;
# this script kills the daemon under it and starts it again, ROUNDS times.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
. "$KERNEL_DIR/trees.sh"
ROUNDS=${ROUNDS:-8}
need_kernel_client

make_versions "$WORK"
daemon_start
must mimeo image import base "$WORK/v1"
must mimeo clone create base desk
# Retries come soon: the default is to wait for a minute.
guest_start -o hard,timeo=20 --export /clones/desk -- guest_crash.py "$ROUNDS"
for round in $(seq "$ROUNDS"); do
  await "round-$round"
  daemon_stop KILL
  check_store "crash $round"
  daemon_start
done
guest_wait "fsync loops over $ROUNDS crashes"
daemon_stop TERM
check_store
finish
