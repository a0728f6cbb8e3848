#!/usr/bin/env bash
# Goal: an export that takes no writes says so, with the status that belongs to it, and nothing changes.
# Method: guest_readonly.py tries each kind of change on a read-only clone and on a version.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
. "$KERNEL_DIR/trees.sh"
need_kernel_client

make_versions "$WORK"
daemon_start
must mimeo image import base "$WORK/v1"
must mimeo clone create base desk
must mimeo clone set desk --ro
guest_start --export /clones/desk=/mnt/clone --export /images/base@v1=/mnt/version -- guest_readonly.py
guest_wait "changes refused"
finish
