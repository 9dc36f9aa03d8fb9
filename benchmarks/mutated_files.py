"""Change input files and checkpoints at random, thousands of each kind, and name what must not happen.

    python benchmarks/mutated_files.py --count 3000 --seed 1

Each is read as `capture` reads it. It may be refused in one line, or be read with the right numbers, or with
a report that says "not checked". A traceback, ten seconds, a gigabyte or another number is a failure: exit 1.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / "tests")]

from support.mutated_files import (
    find_failures,
    make_seeds,
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Change files at random and read them.")
    parser.add_argument("--count", type=int, default=3000, help="files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in make_seeds():
            start = time.monotonic()
            found = list(find_failures(name, options.count, Path(folder), options.seed))
            failures += len(found)
            print(f"{name:10} {options.count} files, {len(found)} failures, {time.monotonic() - start:.0f} s")
            print("".join(f"    {line}\n" for line in found[:20]), end="")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(f"at most {grown:.2f} GB more than at the start")
    return int(failures > 0 or grown > 1)


if __name__ == "__main__":
    sys.exit(main())
