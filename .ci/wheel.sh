#!/usr/bin/env bash
# Build sdist and wheel, install the wheel where the repository is not seen, and use it: bash .ci/wheel.sh [PYTHON] [DIR]
# Everything is made in DIR, which is kept where it is given; torch and its libraries are several GB.
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
place=${2:-$(mktemp -d)}
[ $# -ge 2 ] || trap 'rm -rf "$place"' EXIT
mkdir -p "$place/elsewhere"
most=40000000  # bytes of the wheel

step() { printf '\n== %s\n' "$1"; }

step "build with $("$python" --version)"
"$python" -m venv "$place/build"
"$place/build/bin/python" -m pip install -q --disable-pip-version-check build
"$place/build/bin/python" -m build --outdir "$place/dist" "$root" > "$place/build.log"  # the wheel is built from the sdist
wheel=$(ls "$place"/dist/*.whl)
size=$(stat -c %s "$wheel")
echo "$(basename "$wheel"): $size bytes, sdist: $(stat -c %s "$place"/dist/*.tar.gz) bytes"
[ "$size" -lt "$most" ] || { echo "the wheel must stay below $most bytes" >&2; exit 1; }

step "install"
"$python" -m venv "$place/venv"
bin=$place/venv/bin
"$bin/python" -m pip install -q --disable-pip-version-check -c "$root/constraints.txt" "$wheel" mypy
"$bin/python" -m pip check

cd "$place/elsewhere"
export VLMSEL_CACHE=$place/cache VLMSEL_LIBRARY=$place/library.safetensors
step "import, types"
"$bin/python" -c 'import sys, vlmsel_auto; print(vlmsel_auto.__file__); assert "torch" not in sys.modules'
cat > user.py << 'END'
from pathlib import Path

import vlmsel_auto


def best(folder: Path) -> str | None:
    result = vlmsel_auto.search(folder, budget=60)
    return None if result.best is None else result.best.candidate


reveal_type(vlmsel_auto.predict(Path("model"), [Path("image.png")]).labels)
reveal_type(best(Path("photos")))
END
"$bin/python" -m mypy --strict --cache-dir "$place/mypy" user.py
"$bin/vlmsel-auto" --version

step "the demo"
"$bin/vlmsel-auto" demo --time-budget "${DEMO_SECONDS:-30s}" --workdir demo --quiet
test -f demo/search/report/report.html
test -f demo/search/model/head.safetensors
"$bin/vlmsel-auto" predict demo/search/model demo/images -o predictions.csv --quiet
step "all is well with $("$python" --version)"
