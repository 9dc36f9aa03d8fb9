"""Make a corpus of trainings that fail by accident, and judge `diagnose` on it.

    python -m benchmarks.natural_failures choose               make what is missing, print the tables
    python -m benchmarks.natural_failures choose --no-making   print the tables of what is there
    python -m benchmarks.natural_failures choose --again       capture from the weights again, then the tables
    python -m benchmarks.natural_failures choose --show KIND   print what is found in each run of a kind
    python -m benchmarks.natural_failures choose --alarms      print each warning about a healthy run
    python -m benchmarks.natural_failures choose --separate    print numbers of sick and of healthy runs
    python -m benchmarks.natural_failures judge                the tables of the runs that judge

Runs are kept in a folder, and those that are there are not made again. Statistics that are newer than the
corpus come into its reports by `--again`, and into its histories by making the runs anew.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from benchmarks.natural_failures import corpus, judge, separation, tables  # noqa: E402 - the path comes first
from benchmarks.natural_failures.runs import list_runs  # noqa: E402

CORPUS = Path(tempfile.gettempdir()) / "natural_failures"


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("which", choices=("choose", "judge"), help="thresholds are chosen on the first ones")
    parser.add_argument(
        "--folder", type=Path, default=CORPUS, help=f"where runs are kept, by default {CORPUS}"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--most", type=int, default=3, help="runs of each kind and control")
    parser.add_argument("--only", default="", metavar="TEXT", help="runs whose name has this in it")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--no-making", action="store_true")
    parser.add_argument("--show", metavar="KIND")
    parser.add_argument("--alarms", action="store_true")
    parser.add_argument("--separate", action="store_true")
    parser.add_argument("--write", type=Path, help="a document with the two marks to put the tables between")
    given = parser.parse_args()
    looks_closer = given.show or given.separate or given.alarms
    if given.which == "judge" and looks_closer:
        parser.error("runs that judge are not looked at one by one")
    folder = given.folder / given.which
    runs = [run for run in list_runs(given.which, given.most) if given.only in run.name]
    if given.again or not (given.no_making or looks_closer):
        corpus.make_missing(runs, folder, given.processes, again=given.again)
    made = corpus.read(runs, folder)
    if given.separate:
        print("\n".join([*separation.main_table(made), "", *separation.table(made)]))
        return
    if given.show:
        print("\n".join(judge.describe(made, given.show)))
        return
    judgement = judge.judge_all(made, given.processes)
    if given.alarms:
        print("\n".join(judge.describe_alarms(judgement)))
        return
    text = "\n".join(tables.all_tables(judgement))
    print(text)
    if given.write:
        tables.put_between_marks(text, given.write)


if __name__ == "__main__":
    main()
