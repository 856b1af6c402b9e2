#!/usr/bin/env bash
# Installs everything into a virtual environment: install.sh VENV PYTHON PLATFORM, with PLATFORM cpu, gpu or auto.
# `make setup` calls it. The stamp it leaves holds a hash of all that decides the outcome, so a second call returns at
# once, a changed pin installs again, and a failed install (which leaves no stamp) is not taken for a good one.
set -euo pipefail

venv=$1 python=$2 platform=$3
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
say() { echo "setup: $*"; }
die() { echo "setup: error: $*" >&2; exit 1; }

why="PLATFORM=$platform"
if [[ $platform == auto ]]; then
    if [[ -e /proc/driver/nvidia/version ]] || nvidia-smi >/dev/null 2>&1; then
        platform=gpu why="an NVIDIA driver is present; PLATFORM=cpu overrides"
    else
        platform=cpu why="no NVIDIA driver found; PLATFORM=gpu overrides"
    fi
fi
constraints=timepro/environment/constraints-$platform.txt
[[ -f $constraints ]] || die "PLATFORM is '$platform'; it must be cpu, gpu or auto"

stamp=$venv/.timepro-setup
hash=$( { echo "$root $platform"; cat setup.py pyproject.toml timepro/__init__.py "$constraints" timepro/environment/*.{py,sh}; } |
    sha256sum | cut -d' ' -f1)
wanted="$platform $hash"
if [[ -f $stamp && $(<"$stamp") == "$wanted" && -x $venv/bin/python ]]; then
    say "$venv is up to date ($platform)"
    exit 0
fi

command -v "$python" >/dev/null || die "no '$python' on the PATH; name a Python 3.11 or newer: make setup PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$("$python" --version) is too old: 3.11 or newer is needed; name one: make setup PYTHON=..."

say "platform $platform ($why), environment $venv"
clear=()
# Packages of the other platform must not stay behind.
[[ -f $stamp && $(<"$stamp") != "$platform "* ]] && clear=(--clear)
rm -f "$stamp"
"$python" -m venv "${clear[@]}" "$venv"
# Without compiling: Python does it for the modules that are imported, and most of these never are.
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --constraint "$constraints")
torch_build() { "$venv/bin/python" -W ignore -c 'import torch; v = torch.version.cuda; print(f"CUDA {v}" if v else "cpu")'; }

if [[ $platform == cpu ]]; then
    # First and by its full name: resolved with the rest, pip could fetch gigabytes of a CUDA build instead.
    torch=$(grep '^torch==' "$constraints")
    hint="give pip an index of CPU wheels (PyTorch publishes one) in PIP_EXTRA_INDEX_URL and run make setup again"
    [[ $(uname -s) == Linux ]] && torch+=+cpu
    say "installing $torch"
    "${pip[@]}" "$torch" || die "pip could not install $torch (see above); if it found no such version, $hint"
    build=$(torch_build)
    [[ $build == cpu ]] || die "the installed torch is a build for $build: remove $venv, $hint"
fi

say "installing timepro with its packages (minutes the first time)"
"${pip[@]}" --editable ".[$platform,dev]" || die "pip failed (see above); run make setup again once mended"
# Not fatal: a package that is compiled on the spot, for one metric (`timepro evaluate --psds`) and its tests.
"${pip[@]}" sed_scores_eval "pandas<3" >/dev/null 2>&1 ||
    say "without PSDS: sed_scores_eval could not be installed (it is built here, by a C++ compiler); all else works"
if [[ $platform == gpu && $(torch_build) == cpu ]]; then
    die "pip took a CPU build of torch: remove $venv and take the CPU wheels out of pip's indexes and find-links"
fi
"$venv/bin/python" -m timepro.environment.cpu_wheels | sed 's/^/setup: /'
echo "$wanted" >"$stamp"
say "done; $venv/bin/python -m timepro.environment.doctor checks every import"
