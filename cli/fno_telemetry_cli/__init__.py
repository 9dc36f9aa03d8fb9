"""The command `fno-telemetry`: parses, calls the public names of `fno_telemetry`, prints."""
