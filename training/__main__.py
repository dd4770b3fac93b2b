"""`torchrun --nproc-per-node K -m infnerf.training DATA --out X ...`: `infnerf train` by several processes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence

from ..renderer.cliutil import CommandError, parse_arguments, run_command
from .cli import Train

PROGRAM = "infnerf.training"
GRACE_S = 3.0  # torchrun ends all ranks when one has failed: time for rank 0 to say why


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes as `infnerf`'s. Bad arguments are the same on every rank; only rank 0 speaks of them."""
    if os.environ.get("RANK", "0") == "0":
        return run_command(PROGRAM, parse_arguments(PROGRAM, Train, argv, Train.__doc__).run)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
            command: Train = parse_arguments(PROGRAM, Train, argv)
            command.settings()
    except CommandError as error:
        code = error.code
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    else:
        code = run_command(f"{PROGRAM}, rank {os.environ['RANK']}", command.run)
    if code:
        time.sleep(GRACE_S)
    return code


if __name__ == "__main__":
    sys.exit(main())
