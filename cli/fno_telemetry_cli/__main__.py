"""`python -m fno_telemetry_cli`."""

from fno_telemetry_cli.app import main

if __name__ == "__main__":
    main()
