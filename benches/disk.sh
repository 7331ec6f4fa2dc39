#!/bin/sh
# Passes over weights against the disk's own sequential rate, as tables on the standard output: with idle processors, and
# with as many threads computing as there are.
#
#   benches/disk.sh FOLDER [GIB]
#
# FOLDER is on the disk in question and has room for a file of GIB GiB (4), which is made there and removed.
set -eu
folder=${1:?a folder on the disk to measure: benches/disk.sh FOLDER [GIB]}
folder=$(cd "$folder" && pwd)
gib=${2:-4}
cd "$(dirname "$0")/.."
cargo build --release --quiet -p loadline-device --example disk_pass
for busy in 0 "$(nproc)"; do
    target/release/examples/disk_pass "$folder" "$gib" "$busy"
    echo
done
