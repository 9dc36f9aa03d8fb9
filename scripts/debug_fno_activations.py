"""The earlier script's command line, on top of `fno-telemetry capture`.

    python scripts/debug_fno_activations.py --input train.npz --output out --architecture fno \
        --batch-size 1 --max-samples 8 --device cpu

It takes every option of `capture`, and replaces an existing report as the earlier script did.
"""

import sys

from fno_telemetry_cli.app import main

if __name__ == "__main__":
    main(["capture", "--force", *sys.argv[1:]])
