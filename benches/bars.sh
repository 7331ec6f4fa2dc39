#!/bin/sh
# Every row of the bars for the processor, as Markdown on the standard output: speed against PyTorch, memory of a step
# from disk, full-size runs within their budgets, and passes over weights and a cold start against the disk's own rate.
#
#   benches/bars.sh > benches/results/bars-MACHINE.md
#
# PYTHON names a Python that has torch, diffusers, transformers and safetensors (see benches/against_pytorch.sh).
# Takes some 40 minutes of two idle processors for the speed, 10 for the memory, 16 GiB of memory and 35 GB of disk
# under target/, which are given back. Rows of one kind only:
#
#   benches/against_pytorch.sh --only text
#   benches/memory.py target/release/loadline target/full-size --only step
set -eu
cd "$(dirname "$0")/.."
cargo build --release --quiet -p loadline-cli
echo "# The bars for the processor"
echo
lscpu | sed -n 's/^Model name: */On /p' | head -n 1
echo "with $(nproc) processors and $(free -h --si | awk '/^Mem:/ {print $2}') of memory, Linux $(uname -r)."
echo
echo "## Time against PyTorch's, bound 1.00"
echo
benches/against_pytorch.sh "$@"
echo
echo "## Memory, seen from outside of the process"
echo
python3 benches/memory.py target/release/loadline target/full-size
echo
echo "## Passes over weights against the disk's own rate"
echo
mkdir -p target/full-size
benches/disk.sh target/full-size
echo "## Cold start, bound 0.90"
echo
python3 benches/cold_start.py target/release/loadline target/release/examples/disk_pass target/full-size
