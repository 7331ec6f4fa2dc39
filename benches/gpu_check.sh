#!/usr/bin/env bash
# What only a machine with an NVIDIA GPU can show, in parts that can be chosen; together they are meant to take below
# ten minutes, which no GPU has confirmed yet.
#
#   benches/gpu_check.sh                             build, and run every part
#   benches/gpu_check.sh contract parity             build, and run these
#   benches/gpu_check.sh --binary FILE PARTS         run with a program that was built elsewhere; the part `kernels` then
#                                                    needs --kernel-tests FILE, too
#
# Parts: contract kernels parity budget record forecast schedule peers. What they do and which options there are says
#
#   python3 benches/gpu_check.py --help
#
# The results go to benches/results/gpu-NAME.md and .json, a recorded profile to host/profile/profiles/NAME.json.
# PYTHON names the Python to use (default: python3); `peers` needs one with torch and diffusers, the rest need none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
binary=
args=()
while [ $# -gt 0 ]; do
  case $1 in
    --binary) binary=${2:?--binary needs a file}; shift 2 ;;
    --binary=*) binary=${1#*=}; shift ;;
    *) args+=("$1"); shift ;;
  esac
done
if [ -z "$binary" ]; then
  cargo build --release --quiet -p loadline-cli
  binary=target/release/loadline
  tests=$(cargo test --release --quiet -p loadline-cuda-mock --features kernels --test kernels --no-run --message-format=json |
    "$python" -c 'import json, sys
for line in sys.stdin:
    built = json.loads(line)
    if built.get("target", {}).get("name") == "kernels" and built.get("executable"):
        print(built["executable"])')
  if [ -n "$tests" ]; then args=(--kernel-tests "$tests" ${args[@]+"${args[@]}"}); fi
fi
if [ ! -x "$binary" ]; then
  echo "gpu_check: $binary is no program; build it with: cargo build --release -p loadline-cli" >&2
  exit 2
fi
exec "$python" benches/gpu_check.py --binary "$binary" ${args[@]+"${args[@]}"}
