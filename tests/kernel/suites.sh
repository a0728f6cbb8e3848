#!/usr/bin/env bash
# Goal: the Linux kernel client finds on a clone what it finds on a local filesystem behind a good server.
# Method: the client harness's own suites, each in a guest of its own on a clone of its own: `basic` (what the
# Connectathon suite looks at), `fsx` (random reads, writes, truncates and mmaps, FSX_OPS in each of nine
# runs), `fio-verify` (a checksum in every block) and `workload` (git, a build, tar, sqlite). NFS-Ganesha on
# XFS passes all of them. Afterwards the store is looked over.
#
#   SUITES="basic fsx" suites.sh        FSX_OPS=N: default 11,200, which makes 100,800 altogether
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
. "$KERNEL_DIR/trees.sh"
SUITES=${SUITES:-basic fsx fio-verify workload}
FSX_OPS=${FSX_OPS:-11200}
need_kernel_client

# A guest has a /tmp of its own: suites that lie there it would not find.
cp -r "$NFS_CLIENT" "$WORK/nfs-client"

# suite NAME: its checks count as ours.
suite() {
  local out=$WORK/$1 clone=/clones/$1 name exit passed failed secs
  must mimeo clone create base "$1"
  # The second mount has a cache of its own: `basic` looks at one file through both.
  LIMIT=${GUEST_LIMIT:-900} "$WORK/nfs-client/run-suites" -d "$out" -s "$1" -- --server "127.0.0.1:$PORT" \
    --mem 512 --env "OPS=$FSX_OPS" -o acregmin=0 \
    --export "$clone=/mnt/a=nosharecache" --export "$clone=/mnt/b=nosharecache,noac" >"$WORK/suites.log" 2>&1 || true
  IFS=$'\t' read -r name exit passed failed secs <"$out/summary.tsv" || true
  if [ "${exit:-1}" = 0 ] && [ "${failed:-?}" = 0 ] && [ "${passed:-0}" -gt 0 ]; then
    PASSED=$((PASSED + passed))
    echo "ok    suite $name: $passed checks in $secs s"
  else
    passed=${passed//[!0-9]/}
    PASSED=$((PASSED + ${passed:-0}))
    fail "suite $1" "exit ${exit:-none}, ${passed:-0} passed, ${failed:-?} failed"
    sed 's/^/      /' <(grep -A 5 '^FAIL' "$out/$1.out") <(tail -n 5 "$out/$1.err")
  fi
}

make_versions "$WORK"
daemon_start
must mimeo image import base "$WORK/v1"
for name in $SUITES; do
  case $name in
    fsx) tool=$VMNFS_CACHE/tools/bin/fsx ;;
    fio-verify) tool=fio ;;
    *) tool=git ;;
  esac
  if command -v "$tool" >/dev/null; then suite "$name"; else skip "suite $name" "there is no $tool here"; fi
done
daemon_stop TERM
check_store
finish
