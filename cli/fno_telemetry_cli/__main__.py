"""`python -m fno_telemetry_cli`, and where the installed command starts."""

import os
import sys

from fno_telemetry_cli.interrupts import sigterm_as_ctrl_c


def start() -> None:
    """Run the command; Ctrl-C and SIGTERM end it in one line while it is still being imported, too."""
    if sys.getfilesystemencoding() == "ascii":
        # With LC_ALL=C and PYTHONUTF8=0: TensorBoard and W&B could write no name with other letters.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - itself
    try:
        with sigterm_as_ctrl_c():
            from fno_telemetry_cli.app import main
    except KeyboardInterrupt:
        sys.stderr.write("fno-telemetry: interrupted\n")
        sys.exit(130)
    main()


if __name__ == "__main__":
    start()
