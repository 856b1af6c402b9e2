"""Fetch freely licensed recordings of single sounds from Debian packages into a sound bank, with their licences named.

    python experiments/real_sounds.py ~/sounds        then: timepro data soundbank ~/sounds

The packages are downloaded by `apt-get download` and unpacked by `dpkg -x` into a temporary folder, so nothing is
installed and nobody has to be root; `apt-get update` must have been run once. The recordings stay out of this
repository: the folder must lie elsewhere. `LICENCES.md` in it says which file came from which version of which package
under which licence, and `.licences/` holds the packages' own copyright files, whose terms (attribution, share-alike)
bind whoever passes recordings, or mixtures of them, on.

Recordings that may be of one session (a door opened and closed, steps on one ground, one speaker) lie in one
sub-folder, so that the split keeps them together.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
_TIMEOUT_S = 300
_MINETEST = "usr/share/games/minetest/games/minetest_game/mods"
_THEME = "usr/share/sounds/freedesktop/stereo"
_SPHINX = "usr/share/pocketsphinx/test/data"
_SONIC = "usr/share/sonic-pi/samples"
_ASTERISK = "usr/share/asterisk/sounds/en_US_f_Allison"


@dataclass(frozen=True)
class Source:
    """Recordings of one source.

    Args:
        label: the class.
        name: of the sub-folder.
        package: of Debian.
        pattern: of the files, below the package's root.
        licence: as the package's copyright file has it for these files.
    """

    label: str
    name: str
    package: str
    pattern: str
    licence: str


def _minetest(label: str, name: str, pattern: str, licence: str = "CC-BY-SA-3.0") -> Source:
    return Source(label, name, "minetest-data", f"{_MINETEST}/{pattern}.ogg", licence)


def _theme(label: str, name: str, licence: str) -> Source:
    return Source(label, name, "sound-theme-freedesktop", f"{_THEME}/{name}.oga", licence)


def _sonic(label: str, name: str, licence: str, pattern: str = "") -> Source:
    return Source(label, name, "sonic-pi-samples", f"{_SONIC}/{pattern or name}.flac", licence)


_GROUNDS = ("dirt", "grass", "gravel", "hard", "ice", "metal", "sand", "snow")
SOURCES: tuple[Source, ...] = (
    *(_minetest("glass_breaking", f"break_glass_{n}", f"default/sounds/default_break_glass.{n}") for n in (1, 2, 3)),
    _minetest("door", "wood", "doors/sounds/doors_door_*", "CC-BY-3.0"),
    _minetest("door", "fence_gate", "doors/sounds/doors_fencegate_*", "CC-BY-3.0"),
    _minetest("door", "glass", "doors/sounds/doors_glass_door_*", "CC0-1.0"),
    _minetest("door", "steel", "doors/sounds/doors_steel_door_*", "CC-BY-3.0"),
    _minetest("door", "steel_bars", "xpanes/sounds/xpanes_steel_bar_door_*"),
    _minetest("door", "chest", "default/sounds/default_chest_*"),
    *(_minetest("footstep", ground, f"default/sounds/default_{ground}_footstep*") for ground in _GROUNDS),
    _minetest("fire", "fire", "fire/sounds/fire_fire.*"),
    _minetest("fire", "fire_large", "fire/sounds/fire_large"),
    _minetest("fire", "fire_small", "fire/sounds/fire_small"),
    _minetest("fire", "furnace", "default/sounds/default_furnace_active"),
    *(_minetest("water", f"water_{n}", f"env_sounds/sounds/env_sounds_water.{n}") for n in (1, 2, 3, 4)),
    _theme("bell", "bell", "CC-BY-3.0"),
    _sonic("bell", "perc_bell", "CC0"),
    _sonic("bell", "perc_bell2", "MIT"),
    _sonic("bell", "elec_bell", "CC0"),
    _theme("phone", "phone-incoming-call", "GPL-2+"),
    _theme("phone", "phone-outgoing-busy", "GPL-2+"),
    _theme("phone", "phone-outgoing-calling", "GPL-2+"),
    _sonic("phone", "mehackit_phone", "MIT", "mehackit_phone?"),
    Source("speech", "librivox", "pocketsphinx-testdata", f"{_SPHINX}/librivox/*.wav", "BSD-2"),
    Source("speech", "cards", "pocketsphinx-testdata", f"{_SPHINX}/cards/*.wav", "BSD-2"),
    Source("speech", "channel_names", "sound-theme-freedesktop", f"{_THEME}/audio-channel-*.oga", "GPL-2+"),
    Source("speech", "allison", "asterisk-core-sounds-en-wav", f"{_ASTERISK}/*.wav", "CC-BY-SA-3.0"),
    _sonic("backgrounds", "vinyl_hiss", "CC0"),
    _sonic("backgrounds", "3d_printer", "MIT", "loop_3d_printer"),
    _minetest("backgrounds", "lava", "env_sounds/sounds/env_sounds_lava.*"),
    _minetest("backgrounds", "cart", "carts/sounds/carts_cart_moving.*"),
)


def fetch(folder: Path) -> None:
    """Make a sound bank.

    Args:
        folder: made here, complete or not at all.

    Raises:
        ValueError: a folder that exists or lies in this repository, no apt, a package that cannot be had, or one that
            no longer holds what is listed here.
    """
    target = folder.expanduser().resolve()
    if target.is_relative_to(REPOSITORY):
        raise ValueError(f"{target} lies in this repository, which holds no recordings; give a folder elsewhere")
    if target.exists():
        raise ValueError(f"{target} exists already; give another folder, or remove it first")
    if missing := [name for name in ("apt-get", "dpkg", "dpkg-deb") if shutil.which(name) is None]:
        raise ValueError(f"{', '.join(missing)}: not found; the recordings come from Debian packages")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work:
        bank, rows = Path(work) / "bank", []
        packages = list(dict.fromkeys(source.package for source in SOURCES))
        unpacked = {name: _unpack(name, Path(work) / "packages") for name in packages}
        for source in SOURCES:
            root, version = unpacked[source.package]
            rows.append(_copy(source, root, bank, version))
        for name, (root, _) in unpacked.items():
            (bank / ".licences").mkdir(exist_ok=True)
            shutil.copy(root / "usr/share/doc" / name / "copyright", bank / ".licences" / f"{name}.txt")
        (bank / "LICENCES.md").write_text(_licences(rows), encoding="utf-8")
        bank.rename(target)
    files = sum(len(row[-1]) for row in rows)
    print(f"{target}: {files} recordings of {len(SOURCES)} sources; LICENCES.md says where each is from")


def _unpack(package: str, folder: Path) -> tuple[Path, str]:
    """Download a package and unpack it; returns its root and its version."""
    place = folder / package
    place.mkdir(parents=True)
    _run(["apt-get", "download", package], place, f"{package} cannot be downloaded; run 'apt-get update' once")
    archive = next(place.glob("*.deb"))
    version = _run(["dpkg-deb", "-f", str(archive), "Version"], place, f"{archive.name} is damaged").strip()
    _run(["dpkg", "-x", str(archive), str(place / "root")], place, f"{archive.name} cannot be unpacked")
    return place / "root", version


def _run(words: Sequence[str], folder: Path, what: str) -> str:
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"{what}: no answer in {_TIMEOUT_S} s ({' '.join(words)})") from None
    if done.returncode:
        raise ValueError(f"{what} ({' '.join(words)}: {done.stderr.strip().splitlines()[-1:]})")
    return done.stdout


def _copy(source: Source, root: Path, bank: Path, version: str) -> tuple[Source, str, list[str]]:
    files = sorted(path for path in root.glob(source.pattern) if path.is_file() and not path.is_symlink())
    if not files:
        raise ValueError(f"{source.package} {version} holds no {source.pattern}; change SOURCES in {__file__}")
    place = bank / source.label / source.name
    place.mkdir(parents=True)
    for path in files:
        shutil.copy(path, place / path.name)
    return source, version, [path.name for path in files]


def _licences(rows: Sequence[tuple[Source, str, list[str]]]) -> str:
    lines = ["# Where these recordings are from", "", "| folder | files | package | version | licence |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for source, version, names in rows:
        shown = ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "")
        lines.append(f"| {source.label}/{source.name} | {shown} | {source.package} | {version} | {source.licence} |")
    return "\n".join([*lines, "", "The packages' own copyright files are in `.licences/`.", ""])


def main() -> int:
    """Run the script; 0 done, 2 for what the user can put right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the sound bank to make, outside this repository")
    try:
        fetch(parser.parse_args().folder)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
