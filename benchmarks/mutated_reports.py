"""What `view`, `compare` and `diagnose` do with thousands of damaged or hostile reports and TOML files.

    python benchmarks/mutated_reports.py [--files 5000] [--seed 0]

Prints each file with which the command did not end as tests/support/mutated_reports.py says, and leaves it in
the working folder; exit code 1 if there is one.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests")]

from support import mutated_reports  # noqa: E402 - the tests are no package that is installed


def main() -> None:
    """Try all files, in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mutated-", dir="."))
    found = 0
    for line, breach in mutated_reports.find_breaches(given.files, given.seed, folder):
        found += 1
        print(f"{line}\n    {breach}", flush=True)
    print(f"{given.files} files, {found} of them with a broken promise")
    if not found:
        (folder / "whole.json").unlink()
        folder.rmdir()
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
