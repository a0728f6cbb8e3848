#!/usr/bin/env bash
# Goal: a listing that runs across a repoint returns each entry that both versions have exactly once.
# Method: a directory of 26,000 names, of which each version has 3,000 to itself; guest_listing.py reads it
# in small pieces and stops at several points, where this script switches the clone, back and forth; with
# READDIR and with READDIRPLUS.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
need_kernel_client

mkdir -p "$WORK/v1/dir" "$WORK/v2/dir"
(cd "$WORK/v1/dir" && seq -f 'kept-%05g' 1 20000 | xargs touch && seq -f 'one-%04g' 1 3000 | xargs touch)
(cd "$WORK/v2/dir" && seq -f 'kept-%05g' 1 20000 | xargs touch -r ../../v1/dir && seq -f 'two-%04g' 1 3000 | xargs touch)
daemon_start
must mimeo image import base "$WORK/v1"
must mimeo clone create base desk
must mimeo image import base "$WORK/v2"

guest_start -o actimeo=1 --export /clones/desk=/mnt/plain=nordirplus,nosharecache --export /clones/desk=/mnt/plus=nosharecache \
  -- guest_listing.py
round=0
for version in 2 1 2 1 2 1 2 1; do
  await "stopped-$((++round))"
  must mimeo repoint base --to "base@v$version"
  tell "switched-$round"
done
guest_wait "listings"
finish
