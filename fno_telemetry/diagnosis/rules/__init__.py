"""The built-in rules, one per file, in a folder for what they are about.

A new one needs its file here and its name in `fno_telemetry.plugins`.
"""
