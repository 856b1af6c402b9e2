"""What an installed distribution asks for, here, as lines for `pip install --requirement`.

`python -m timepro.environment.requirements NAME [LEFT_OUT ...]`: for a distribution that was installed without its
requirements because one of them cannot be had.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def requirements_of(name: str, left_out: list[str]) -> list[str]:
    """Requirements that apply in this environment, without extras and without those left out.

    Raises:
        PackageNotFoundError: the distribution is not installed.
    """
    skipped = {canonicalize_name(other) for other in left_out}
    parsed = [Requirement(line) for line in requires(name) or []]
    return [
        str(one)
        for one in parsed
        if canonicalize_name(one.name) not in skipped and (one.marker is None or one.marker.evaluate({"extra": ""}))
    ]


def main(arguments: list[str]) -> int:
    """Print them; returns 1 where the distribution is not installed."""
    try:
        print("\n".join(requirements_of(arguments[0], arguments[1:])))
    except PackageNotFoundError:
        print(f"{arguments[0]} is not installed in {sys.prefix}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
