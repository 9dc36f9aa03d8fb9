"""The built-in rules, one per file. A new one needs its file here and its name in `fno_telemetry.plugins`."""
