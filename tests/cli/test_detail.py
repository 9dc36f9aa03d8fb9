"""`--detail`: how much goes to dashboards; the report always has every number."""

from pathlib import Path

import fno_telemetry as ft
from fno_telemetry import keys
from fno_telemetry.sinks import TensorBoard, select_overview

LINE = ("capture", "--input", "train.npz", "--output", "out", "--sink", "tensorboard")


def shown(folder: str) -> set[str]:
    """The curves in a folder's TensorBoard run."""
    [numbers] = TensorBoard().read_back(Path(folder)).values()
    return set(numbers)


def test_by_default_a_dashboard_gets_the_overview_and_the_report_everything(run, folder, tiny):
    result = run(*LINE, *tiny)
    assert result.code == 0
    record = ft.load_report("out/activation_report.json")
    assert "p05/input" in dict(keys.numbers(record))
    assert shown("out") == set(dict(keys.numbers(select_overview(record))))
    assert "then open http://localhost:6006/#text&_smoothingWeight=0\n" in result.err


def test_with_full_detail_a_dashboard_gets_everything(run, folder, tiny):
    Path("c.toml").write_text('detail = "full"\n')
    assert run(*LINE, *tiny, "--config", "c.toml").code == 0
    record = ft.load_report("out/activation_report.json")
    assert shown("out") == set(dict(keys.numbers(record)))


def test_compare_passes_the_detail_on_and_refuses_it_without_a_sink(run, captured):
    line = ("compare", captured, captured, "--fail-on", "never", "--detail", "full")
    refused = run(*line)
    assert (refused.code, refused.out) == (2, "")
    assert "--detail full: no sink is chosen; add --sink and --output" in refused.err
    record = ft.load_report(captured / "activation_report.json")
    assert run(*line, "--sink", "tensorboard", "--output", "boards").code == 0
    assert shown("boards") == set(dict(keys.numbers(record)))
