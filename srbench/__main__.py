"""`python -m srbench` and the command `srbench`: nothing is imported before an interrupt can be heard."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; every way out has its exit code and no traceback."""
    try:
        from srbench.cli import signals

        signals.listen()
        from srbench.cli.main import main as command
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        exec("")  # see `signals.leave`
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
