# Sourced by the scripts beside it: a daemon and guests of their own, checks that are counted, and an
# end that leaves nothing behind. README.md tells the conventions.
#
# Every wait is bounded. Only processes that were started here are ended, by their id.
# shellcheck shell=bash
set -euo pipefail

KERNEL_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd -- "$KERNEL_DIR/../.." && pwd)
MIMEO=${MIMEO:-${CARGO_TARGET_DIR:-$HOME/.cache/mimeo/target}/release/mimeo}
NFS_CLIENT=${NFS_CLIENT:-$REPO/../shared/nfs-client}
VMNFS_CACHE=${VMNFS_CACHE:-/var/tmp/vmnfs}

PASSED=0 FAILED=0 SKIPPED=0
DAEMON_PID='' GUEST_PID='' PORT=''

WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/mimeo-test.XXXXXX")
SHARE=$WORK/share
DATA=$WORK/data
mkdir "$SHARE"

# --- checks ---------------------------------------------------------------------------------------

ok()   { PASSED=$((PASSED + 1)); echo "ok    $1"; }
fail() { FAILED=$((FAILED + 1)); echo "FAIL  $1: ${2:-failed}"; }
skip() { SKIPPED=$((SKIPPED + 1)); echo "skip  $1: $2"; }
note() { echo "      $*"; }

# check NAME COMMAND...: passes if the command does; what it printed is the reason if it does not.
check() {
  local name=$1 out
  shift
  if out=$("$@" 2>&1); then ok "$name"; else fail "$name" "$(tail -n 5 <<<"$out" | tr '\n' ' ')"; fi
}

# refuses NAME PATTERN COMMAND...: passes if the command fails and says PATTERN.
refuses() {
  local name=$1 pattern=$2 out
  shift 2
  if out=$("$@" 2>&1); then
    fail "$name" "it succeeded: $(head -c 200 <<<"$out")"
  elif grep -qiE -- "$pattern" <<<"$out"; then
    ok "$name"
  else
    fail "$name" "the message lacks /$pattern/: $(head -c 300 <<<"$out")"
  fi
}

# Take over the checks that a guest printed.
absorb() {
  cat "$1"
  PASSED=$((PASSED + $(grep -c '^ok ' "$1" || true)))
  FAILED=$((FAILED + $(grep -c '^FAIL ' "$1" || true)))
}

die() {
  fail "${0##*/}" "$1"
  [ -z "$DAEMON_PID" ] || sed 's/^/      daemon: /' <(tail -n 15 "$WORK/daemon.log")
  finish
}

finish() {
  echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
  [ "$FAILED" = 0 ] || exit 1
  exit 0
}

# --- the daemon -----------------------------------------------------------------------------------

free_port() {
  /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

# daemon_start: serve $DATA on 127.0.0.1:$PORT; a second start uses the same port.
daemon_start() {
  [ -x "$MIMEO" ] || die "no program at $MIMEO: run 'make build'"
  PORT=${PORT:-$(free_port)}
  : >"$WORK/daemon.log"
  "$MIMEO" serve --data "$DATA" --nfs "127.0.0.1:$PORT" </dev/null >>"$WORK/daemon.log" 2>&1 &
  DAEMON_PID=$!
  local tries=0
  until grep -q 'mimeo: serving NFS on' "$WORK/daemon.log"; do
    alive "$DAEMON_PID" || die "the daemon ended at its start"
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || die "the daemon was not ready within 60 s"
    sleep 0.1
  done
}

# daemon_stop [SIGNAL]: end it and wait until it is gone.
daemon_stop() {
  [ -n "$DAEMON_PID" ] || return 0
  local tries=0
  {
    kill -"${1:-TERM}" "$DAEMON_PID" || true
    while alive "$DAEMON_PID" && [ "$tries" -lt 300 ]; do
      tries=$((tries + 1))
      sleep 0.1
    done
    kill -KILL "$DAEMON_PID" || true
    wait "$DAEMON_PID" || true
  } 2>/dev/null # the shell would tell of each signal
  DAEMON_PID=''
}

# check_store [NAME]: `mimeo fsck` over the data directory of a daemon that does not run.
check_store() { check "${1:-the end}: fsck finds nothing" "$MIMEO" fsck --data "$DATA"; }

mimeo() { timeout 900 env MIMEO_DATA="$DATA" "$MIMEO" "$@"; }

# clones_show COUNT VERSION: there are so many clones, and all show VERSION.
clones_show() {
  mimeo clone ls --json | /usr/bin/python3 -c 'import json, sys
clones = json.load(sys.stdin)["clones"]
off = [c["name"] for c in clones if c["version"] != sys.argv[2]]
sys.exit(f"{len(clones)} clones, not on {sys.argv[2]}: {off[:3]}" if off or len(clones) != int(sys.argv[1]) else 0)' "$1" "$2"
}

# must COMMAND...: a step that the rest depends on.
must() {
  local out
  out=$("$@" 2>&1) || die "'$*' failed: $(tail -n 5 <<<"$out")"
}

# --- the guest ------------------------------------------------------------------------------------

# why_no_kernel_client: prints what this machine lacks for a guest; nothing if all is there.
why_no_kernel_client() {
  if [ ! -x "$NFS_CLIENT/vm-nfs" ]; then echo "no vm-nfs in $NFS_CLIENT (set NFS_CLIENT)"
  elif [ "$(id -u)" != 0 ]; then echo "guests need root"
  elif [ ! -x "$VMNFS_CACHE/uml/run" ] || [ ! -f "$VMNFS_CACHE/modules-uml" ] || [ ! -x /sbin/mount.nfs ]; then echo "not set up: run $NFS_CLIENT/setup"
  elif [ ! -c /dev/net/tun ]; then echo "no /dev/net/tun here"
  elif ! ip netns add "mimeo-probe-$$" 2>/dev/null; then echo "no network namespaces here"
  else ip netns del "mimeo-probe-$$"
  fi
}

# need_kernel_client: ends the script as skipped where there can be no guest.
need_kernel_client() {
  local why
  why=$(why_no_kernel_client)
  [ -z "$why" ] || { skip "${0##*/}" "$why"; finish; }
}

# guest_start VM-NFS-OPTIONS... -- PROGRAM [ARG...]: boot a guest in the background that runs the Python
# PROGRAM of this folder. /tmp is empty in a guest, so the programs go with the share.
guest_start() {
  local options=()
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  cp "$KERNEL_DIR"/*.py "$SHARE/"
  local program="/usr/bin/python3 -B \$SHARE/$*"
  "$NFS_CLIENT/vm-nfs" --server "127.0.0.1:$PORT" --share "$SHARE" --logs "$WORK/logs" --timeout "${GUEST_LIMIT:-300}" \
    "${options[@]}" -- "$program" >"$WORK/guest.out" 2>"$WORK/guest.err" &
  GUEST_PID=$!
}

# guest_wait NAME: its checks count as ours, its death is a failure.
guest_wait() {
  local rc=0
  wait "$GUEST_PID" || rc=$?
  GUEST_PID=''
  absorb "$WORK/guest.out"
  if [ "$rc" = 0 ]; then ok "$1: the client ended well"; else
    fail "$1: the client ended well" "exit $rc (124: timed out, 125: died, 200+: no mount)"
    sed 's/^/      /' "$WORK/guest.err"
  fi
}

# await STEP: until the guest has said STEP.  tell STEP: let it go on.
await() {
  local tries=0
  until [ -e "$SHARE/$1" ]; do
    if ! alive "$GUEST_PID"; then guest_wait "$1"; die "the guest never came to '$1'"; fi
    tries=$((tries + 1))
    [ "$tries" -lt 3000 ] || die "the guest did not come to '$1' within 300 s"
    sleep 0.1
  done
}

tell() { touch "$SHARE/$1"; }

# --- the end --------------------------------------------------------------------------------------

# What a script has to undo before the daemon goes; it may define its own.
at_end() { :; }

cleanup() {
  local rc=$?
  trap - EXIT INT TERM
  if alive "$GUEST_PID"; then kill -TERM "$GUEST_PID"; wait "$GUEST_PID" 2>/dev/null || true; fi
  at_end
  daemon_stop KILL
  if [ -n "${KEEP:-}" ]; then note "kept: $WORK"; else rm -rf "$WORK"; fi
  exit "$rc"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
