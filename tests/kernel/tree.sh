#!/usr/bin/env bash
# Goal: a whole OS tree, read through the Linux kernel client, equals its source: kinds, modes, owners,
# sizes, times, links, devices and every byte.
# Method: import SOURCE (default /usr), clone it, take the same inventory on the host over the source and
# in a guest over a clone and over the version itself, and compare line by line.
#
#   SOURCE=DIR tree.sh       MIN_FILES=N: how many regular files make it a real tree (default 50,000)
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
SOURCE=${SOURCE:-/usr}
MIN_FILES=${MIN_FILES:-50000}
need_kernel_client

daemon_start
must mimeo image import tree "$SOURCE"
must mimeo clone create tree --count 20 --name 'tree-{:02}'

# The variables are the guest's.
# shellcheck disable=SC2016
GUEST_LIMIT=1800 guest_start --export /clones/tree-07 -- inventory.py '$MNT' '$SHARE/served.tsv'
"$KERNEL_DIR/inventory.py" --source "$SOURCE" "$WORK/source.tsv"
guest_wait "inventory of a clone"

FILES=$(awk -F '\t' '$2 == "file"' "$WORK/source.tsv" | wc -l)
note "$(wc -l <"$WORK/source.tsv") objects, $FILES regular files in $SOURCE"
if [ "$FILES" -ge "$MIN_FILES" ]; then ok "the source has at least $MIN_FILES files"; else
  skip "the source has at least $MIN_FILES files" "$SOURCE has $FILES: set SOURCE to a larger tree"
fi
check "the clone equals its source" diff "$WORK/source.tsv" "$SHARE/served.tsv"
finish
