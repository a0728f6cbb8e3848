#!/usr/bin/env bash
# Goal: clones that are switched every second, for SECONDS_LONG seconds, do to nobody what docs/semantics.md
# does not say. An open or mapped file has the bytes of one version, the page cache of what does not change
# stays valid (no READ), no ESTALE, listings and walks are complete, what writers fsynced is there.
# Method: guest_torture.py works on three clones with bytes that tell their version, path and place; this
# script repoints them between two versions, or rolls the last repoint back: those of the readers every
# time, that of the writers every fifth, because each such switch is a view that is kept for open files.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
SECONDS_LONG=${SECONDS_LONG:-20}
SEED=${SEED:-$RANDOM}
WRITES=${WRITES:-keep}
need_kernel_client
note "SEED=$SEED repeats the workers' dice"

for version in 1 2; do
  must /usr/bin/python3 "$KERNEL_DIR/torture_tree.py" "$WORK/v$version" "$version"
done
daemon_start
must mimeo image import base "$WORK/v1"
must mimeo image import base "$WORK/v2"
must mimeo clone create base@v1 quiet read write

# No share of caches between the mounts, so that each counts for itself.
exports=()
for clone in quiet read write; do exports+=(--export "/clones/$clone=/mnt/$clone=nosharecache"); done
GUEST_LIMIT=$((SECONDS_LONG * 2 + 240)) guest_start --mem 768 -o actimeo=1 "${exports[@]}" -- guest_torture.py "$SEED"

# switch VERSION CLONE...: OPERATION is then what may be rolled back.
switch() {
  local version=$1 clones=()
  shift
  for clone; do clones+=(--clone "$clone"); done
  OPERATION=$(mimeo repoint base --to "base@v$version" --writes "$WRITES" "${clones[@]}" --json 2>>"$WORK/switches.log" |
    /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["operation"])')
}

# back VERSION CLONE...: the same by a rollback of the switch before.
back() { mimeo rollback "$OPERATION" >>"$WORK/switches.log" 2>&1; }

await working
switched=0 refused=0 began=$SECONDS
while [ $((SECONDS - began)) -lt "$SECONDS_LONG" ] && alive "$GUEST_PID"; do
  clones=(quiet read) how=switch
  case $((switched % 5)) in
    1) how=back ;;
    3) clones+=(write) ;;
  esac
  "$how" $((2 - switched % 2)) "${clones[@]}" || refused=$((refused + 1))
  switched=$((switched + 1))
  sleep 0.9
done
tell stop
guest_wait "$switched switches"
[ "$refused" = 0 ] || note "$(tail -n 1 "$WORK/switches.log")"
check "each switch was made" [ "$refused" = 0 ]
check "there was about one a second" [ "$switched" -ge $((SECONDS_LONG / 2)) ]
daemon_stop TERM
check_store
finish
