#!/usr/bin/env bash
# `python -m benchmarks.gpu` on a machine with a GPU that reaches no package registry. It must have PyTorch, timm, JAX for
# CUDA, flax, optax and orbax; what vitport needs beside them is carried as wheels (30 MB).
#
#   benchmarks/gpu.sh wheels FOLDER [3.12]    where there is a registry: downloads the wheels, for that Python on Linux x86-64
#   benchmarks/gpu.sh run FOLDER [OPTION …]   on the machine with the GPU: options of `python -m benchmarks.gpu`, as --smoke
set -euo pipefail
cd "$(dirname "$0")/.."

needed=(
  annotated-types array-record cloudpickle docstring-parser grain isal jaxtyping joblib lazy-loader markdown-it-py mdurl
  narwhals portpicker pydantic pydantic-core pygments rich scikit-learn tensorboardX threadpoolctl typeguard
  typing-inspection tyro wadler-lindig
)
folder=$(realpath "$2")
case $1 in
  wheels)
    python3 -m pip download -q --no-deps --only-binary :all: --dest "$folder" \
      --python-version "${3:-3.12}" --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform any \
      "${needed[@]}"
    ;;
  run)
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    python3 -m pip install -q --no-index --no-deps --target "$site" "$folder"/*.whl
    PYTHONPATH=$site:$PWD python3 -m benchmarks.gpu "${@:3}"
    ;;
  *)
    echo "benchmarks/gpu.sh $1 is neither wheels nor run: see its first lines." >&2
    exit 2
    ;;
esac
