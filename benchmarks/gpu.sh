#!/usr/bin/env bash
# Builds the CUDA kernels on a machine with a GPU, tests them and times them. Nothing is fetched when the
# machine's Python already has the build tools; PyTorch is always the machine's own.
#
#   OUT=FOLDER bash benchmarks/gpu.sh
#
# Writes JSON and logs to $OUT (benchmarks/results if unset). Ends with an error if a step failed; the steps
# after a failed test still run, so that one visit to the machine tells as much as it can. The limits of all
# steps together are 9 minutes.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${OUT:-benchmarks/results}
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

failed=()
step() { # step SECONDS NAME COMMAND...: run with a time limit; note a failure and go on
  local limit=$1 name=$2 code=0
  shift 2
  printf '== %s\n' "$name"
  timeout --kill-after=10 "$limit" "$@" || code=$?
  if ((code != 0)); then
    printf '== %s: failed with exit code %d\n' "$name" "$code" >&2
    failed+=("$name")
  fi
}

has() { # has PYTHON MODULE...: whether all of these import
  local interpreter=$1
  shift
  "$interpreter" -c "import importlib.util as u, sys; sys.exit(any(u.find_spec(m) is None for m in sys.argv[1:]))" "$@"
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
# The system's packages are seen through a .pth file, not --system-site-packages: the machine's Python may
# itself be that of a virtual environment, whose packages the option would not show.
"$python" -m venv "$work/venv" || "$python" -m venv --without-pip "$work/venv"
venv=$work/venv/bin/python
"$python" -c 'import site, sysconfig; print(*dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]), sep="\n")' \
  >"$("$venv" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/machine.pth"
has "$venv" torch numpy scipy safetensors || {
  echo "this machine's Python lacks torch, numpy, scipy or safetensors" >&2
  exit 1
}

# --no-deps: the tests and benchmarks below need no more than what was checked, and torch must not change.
install=(install --quiet --no-deps --disable-pip-version-check)
if has "$venv" scikit_build_core pybind11; then
  install+=(--no-build-isolation)
fi
export PRIVKERNELS_CUDA=ON CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-8}
echo "== build"
timeout 180 "$venv" -m pip "${install[@]}" .
missing=()
for package in pytest hypothesis threadpoolctl; do
  has "$venv" "$package" || missing+=("$package")
done
if ((${#missing[@]} > 0)); then
  "$venv" -m pip install --quiet --disable-pip-version-check "${missing[@]}"
fi

"$venv" -c 'import json; from privkernels import _native; r = _native.describe(); r.pop("package"); r["cpu"].pop("file", None); print(json.dumps(r, indent=2)); assert r["cuda"]["usable"], r["cuda"]' \
  | tee "$out/gpu_machine.json"

# No plugins of the machine: each may warn, and a warning is an error.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
step 120 "tests marked gpu" "$venv" -m pytest -m gpu tests/ops -p no:cacheprovider --junitxml "$out/gpu_tests.xml"
if grep -q 'skipped="[1-9]' "$out/gpu_tests.xml" 2>/dev/null; then
  echo "== a gpu test was skipped on a machine with a GPU" >&2
  failed+=("skipped tests")
fi
step 100 "kernels on the GPU" "$venv" -m benchmarks.kernels --device cuda --rounds 3 --json "$out/kernels_cuda.json"
step 60 "kernels on this machine's processor" "$venv" -m benchmarks.kernels --quick --json "$out/kernels_cpu_quick.json"

if sanitizer=$(command -v compute-sanitizer); then
  cat >"$work/small.py" <<'PYTHON'
import torch
from privkernels.ops import prune_apply_, prune_mask, prune_pattern_mask, prune_project_, prune_random_mask
from privkernels.ops import kmeans1d, kmeans1d_split
from privkernels.ops import em_select, kde_em, kde_scores, mask_sum, noise_add, noisy_activations, randomized_response
from privkernels.randomness import Key

for ratio in (1.0, 2.5):
    theta = (torch.randn(9, 77) * 0.3).cuda()  # drawn on the CPU: only our kernels are to be checked
    arguments = dict(lo=-1.0, hi=1.0, bandwidth=0.1, window_ratio=ratio, grid_points=65)
    for work in ("lazy", "fixed"):
        kde_em(theta, multiplier=20.0, key=Key.from_seed(1), label="x", work=work, **arguments)
    kde_scores(theta, **arguments)
scores = torch.randn(3, 3001).cuda()
offsets = torch.tensor([0, 7, 5000, 9003]).cuda()
for mechanism in ("exponential", "permute-and-flip"):
    draw = dict(multiplier=1.0, key=Key.from_seed(1), label="x", k=3, mechanism=mechanism)
    em_select(scores, **draw)
    em_select(scores.reshape(-1), offsets=offsets, **draw)
values = (torch.arange(5003) % 7).cuda()
randomized_response(values, categories=7, epsilon=1.0, key=Key.from_seed(1), label="x", first_element=3)
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    x = torch.randn(1003).to(dtype).cuda()
    for distribution in ("laplace", "gaussian"):
        noise = dict(distribution=distribution, scale=300.0, granularity=1.0, key=Key.from_seed(1), label="x")
        noise_add(x, first_element=77, **noise)
    masks, _ = prune_mask([x, x[:77]], sparsity=0.5, as_bits=True)
    prune_apply_(x, masks[0])
    prune_pattern_mask(x, 2, 4)
    prune_random_mask(x, key=Key.from_seed(1), label="x", first_element=77)
    prune_project_(x, keep=100)
    for clip_kind in ("clamp", "norm"):
        for secure in (True, False):
            a = torch.randn(2, 9, 7, 5).to(dtype).cuda().requires_grad_()
            y = noisy_activations(a, clip=1.0, clip_kind=clip_kind, noise_std=0.5, secure=secure, key=Key.from_seed(1),
                                  label="x", first_element=77)
            torch.autograd.grad(y, a, torch.ones_like(y))
for dtype in (torch.int32, torch.int64):
    for size, seeds in ((1003, 70), (200_003, 2)):
        keys = [Key.from_seed(seed) for seed in range(seeds)]
        mask_sum(torch.arange(size, dtype=dtype).cuda(), keys, [1, -1] * (seeds // 2), first_element=77)
for values in (torch.randn(70_001), torch.randn(70_001).round(), torch.randn(65)):
    for method in ("auto", "lloyd"):
        kmeans1d(values.cuda(), 40, method=method)
    kmeans1d_split(values.cuda(), 300, centroid_bits=8, residual_bits=12)
torch.cuda.synchronize()
PYTHON
  for check in memcheck racecheck; do
    step 40 "compute-sanitizer $check" "$sanitizer" --tool "$check" --error-exitcode 1 "$venv" "$work/small.py"
  done
else
  echo "== compute-sanitizer is not on this machine"
fi

if ((${#failed[@]} > 0)); then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "all passed; results are in $out"
