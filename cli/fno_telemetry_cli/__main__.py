"""`python -m fno_telemetry_cli`, and where the installed command starts."""

import sys

from fno_telemetry_cli.interrupts import sigterm_as_ctrl_c


def start() -> None:
    """Run the command; Ctrl-C and SIGTERM end it in one line while it is still being imported, too."""
    try:
        with sigterm_as_ctrl_c():
            from fno_telemetry_cli.app import main
    except KeyboardInterrupt:
        sys.stderr.write("fno-telemetry: interrupted\n")
        sys.exit(130)
    main()


if __name__ == "__main__":
    start()
