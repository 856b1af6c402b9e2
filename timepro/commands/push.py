"""Put a trained checkpoint on the Hugging Face hub, with its model card. The repository is private unless said."""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path

from timepro.commands.inputs import require_checkpoint
from timepro.hints import fail
from timepro.hub import NOT_PUSHED, push

EXAMPLES = """\
  timepro push runs/sed_grpo/checkpoint NAME/sed-grpo --dry-run    what would be uploaded
  timepro push runs/sed_grpo/checkpoint NAME/sed-grpo              upload it; who may see it is set on the hub
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a checkpoint folder, such as runs/NAME/checkpoint")
    parser.add_argument("repository", metavar="OWNER/NAME", help="on the hub; made where there is none")
    parser.add_argument("--public", action="store_true", help="a repository that is made may be seen by everybody")
    parser.add_argument("--dry-run", action="store_true", help="list the files, and upload nothing")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Upload; returns 0, or 2 for what the user can put right."""
    try:
        require_checkpoint(options.folder)
        files = {path: path.relative_to(options.folder) for path in options.folder.rglob("*") if path.is_file()}
        kept = [path for path, name in files.items() if any(fnmatch(str(name), pattern) for pattern in NOT_PUSHED)]
        if kept:
            print(
                f"not uploaded: {', '.join(sorted(str(files[path]) for path in kept))}; the weights have it merged in"
            )
        if options.dry_run:
            for path in sorted(files.keys() - kept):
                print(f"{path.stat().st_size / 2**20:10.1f} MiB  {files[path]}")
            return 0
        address = push(options.folder, options.repository, private=not options.public)
    except (ValueError, OSError) as error:
        return fail(str(error), 2)
    print(address)
    return 0
