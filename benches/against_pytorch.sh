#!/bin/sh
# The speed of the CPU kernels against PyTorch's, as a table on the standard output.
#
#   benches/against_pytorch.sh [--rounds N] [--only NAME..]      see against_pytorch.py --help
#
# PYTHON names a Python that has torch, diffusers, transformers and safetensors (default: python3):
#
#   python3 -m venv target/pytorch/venv
#   target/pytorch/venv/bin/pip install torch diffusers transformers safetensors
#   PYTHON=target/pytorch/venv/bin/python benches/against_pytorch.sh
#
# All cases together take some 40 minutes of two idle processors and 6 GiB of memory; a block takes one minute:
#
#   benches/against_pytorch.sh --only block-1560
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if ! "$python" -c 'import torch, diffusers, transformers, safetensors' 2>/dev/null; then
    echo "$python lacks torch, diffusers, transformers or safetensors; set PYTHON to one that has them" >&2
    sed -n '5,10s/^# *//p' "$0" >&2
    exit 2
fi
cargo build --release --quiet -p loadline-nn --example against_pytorch
exec "$python" benches/against_pytorch.py target/release/examples/against_pytorch target/pytorch/model "$@"
