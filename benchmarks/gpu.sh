#!/usr/bin/env bash
# Parity, the speed of pre-training and of decoding and their memory on one GPU, in ten minutes: benchmarks/gpu.py
# says what is measured and which other flags there are.
#
#   benchmarks/gpu.sh --out=gpu.json                   with the JAX and the PyTorch that are installed
#   benchmarks/gpu.sh --wheels=FOLDER                  with the wheels of a folder before them; nothing is downloaded
#   benchmarks/gpu.sh --device=cpu --small             without a GPU, to see that it works
set -euo pipefail
from_here=$PWD python=${PYTHON:-python3}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
absolute() { [[ $1 = /* ]] && echo "$1" || echo "$from_here/$1"; }
flags=()
for flag in "$@"; do
  case $flag in
    --wheels=*)
      from=$(absolute "${flag#*=}")
      compgen -G "$from/*.whl" > /dev/null || { echo "error: no wheels in $from" >&2; exit 2; }
      wheels=$(mktemp -d)
      trap 'rm -rf "$wheels"' EXIT
      "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$wheels" "$from"/*.whl
      export PYTHONPATH=$wheels${PYTHONPATH:+:$PYTHONPATH}
      ;;
    --out=*) flags+=("--out=$(absolute "${flag#*=}")") ;;
    *) flags+=("$flag") ;;
  esac
done
"$python" -m benchmarks.gpu "${flags[@]}"
