"""The built-in rules, one a file. A new one goes here and into the table of `fno_telemetry.plugins`."""
