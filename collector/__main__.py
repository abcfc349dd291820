"""`python -m collector`: the worker; with a command, that command.

The worker does without the command line's libraries: a process that runs for months need not hold them.
"""

import sys


def main() -> int:
    """Run what the arguments ask for; return the exit status."""
    arguments = sys.argv[1:]
    if arguments in ([], ["run"]):
        from collector.commands.run import run  # noqa: PLC0415 - see above

        return run()
    from collector.cli import run_command  # noqa: PLC0415 - see above

    return run_command(arguments)


if __name__ == "__main__":
    sys.exit(main())
