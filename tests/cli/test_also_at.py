"""`capture --also-at`: a second report at another resolution, which nothing takes for another checkpoint."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch

import fno_telemetry as ft
from fno_telemetry import report
from support.resolution_networks import make_network

CAPTURE = (
    "capture",
    "--input",
    "train.npz",
    "--model",
    "resolution_networks:make_pointwise",
    "--output",
    "out",
)
FIRST, SECOND = "activation_report.json", "activation_report.at2x.json"


def files() -> list[str]:
    return sorted(path.name for path in Path("out").glob("*.json"))


def test_both_reports_name_each_other_and_diagnose_reads_the_pair(run, folder):
    result = run(*CAPTURE, "--also-at", "2")
    assert result.code == 0, result.err
    assert (
        "out/activation_report.at2x.json: the same fields on 32 x 32 points; the output differs by"
        in result.out
    )
    assert files() == [SECOND, FIRST]
    first, second = (ft.load_report(f"out/{name}") for name in (FIRST, SECOND))
    assert dict(first.provenance["also_at"]) == {"factor": 2, "report": SECOND}
    assert dict(second.provenance["resampled"]) == {"factor": 2, "report": FIRST, "sizes": (32, 32)}
    assert second.summary["resampled"] == 2 and second.resolution.of_report == FIRST
    document = json.loads(Path("out", SECOND).read_text())
    jsonschema.validate(document, report.json_schema())
    assert "resolution" not in json.loads(Path("out", FIRST).read_text())
    assert report.as_record(document) == second
    whole = run("diagnose", "out", "--json").document
    assert run("diagnose", f"out/{SECOND}", f"out/{FIRST}", "--json").document == whole
    assert "resolution_dependent" not in str(whole["skipped"])
    alone = run("diagnose", f"out/{FIRST}", "--json").document
    assert "resolution_dependent" in str(alone["skipped"])


def test_a_model_of_one_size_keeps_its_first_report(run, folder):
    model = ("--model", "resolution_networks:make_fixed")
    result = run(*CAPTURE, *model, "--also-at", "2", "--sink", "tensorboard", "--json")
    assert result.code == 3
    [error] = result.document["errors"]
    assert error["checkpoint"] == f"out/{SECOND}" and "shapes cannot be multiplied" in error["error"]
    assert result.document["sinks"] == {"json": "ok", "tensorboard": "ok"}
    assert files() == [FIRST]
    assert "also_at" not in ft.load_report(f"out/{FIRST}").provenance


def test_several_checkpoints_have_a_pair_each_and_the_second_ones_are_no_steps(run, folder):
    for step, kernel in ((10, 1), (20, 1)):
        torch.save(make_network(kernel, seed=step).state_dict(), f"step{step}.pt")
    several = (
        *CAPTURE,
        "--checkpoint",
        "step*.pt",
        "--also-at",
        "0.5",
        "--diagnose",
        "--sink",
        "tensorboard,history",
    )
    result = run(*several)
    assert result.code == 0, result.err
    steps = [f"activation_report.step{step}{at}.json" for step in (10, 20) for at in ("", ".at0.5x")]
    assert files() == sorted(steps)
    # Nothing that reads a folder, or writes dashboards, takes them for further steps.
    assert len(ft.load_history("out/history.jsonl")) == 2
    everything = [f"out/{name}" for name in steps]
    compared = run("compare", "out", "--json")
    assert compared.document["series"] == run("compare", *everything, "--json").document["series"]
    merged = run("merge", "out", "--sink", "tensorboard", "--output", "merged", "--json")
    assert [entry["step"] for entry in merged.document["reports"]] == [10, 20]
    assert "2 reports, steps 10 to 20" in run("diagnose", "out").out
    again = run(*several)
    assert again.code == 2 and "add --force" in again.err


@pytest.mark.parametrize("factor", ["1", "0", "-2", "nan", "inf"])
def test_what_is_no_factor_is_refused_before_anything_is_read(run, folder, factor):
    result = run(*CAPTURE, f"--also-at={factor}")
    assert result.code == 2
    expected = "expected a positive number but 1, such as 2 or 0.5"
    assert result.err == f"fno-telemetry: --also-at {float(factor):g}: {expected}\n"
    assert not Path("out").exists()


def test_a_factor_that_changes_nothing_is_told_by_its_option(run, folder):
    result = run(*CAPTURE, "--also-at", "1.01")
    assert result.code == 3
    assert "--also-at 1.01: 16 x 16 points stay as they are" in result.err
    assert files() == [FIRST]


def test_redacted_reports_name_each_other_without_paths(run, folder):
    assert run(*CAPTURE, "--also-at", "2", "--redact").code == 0
    second = ft.load_report(f"out/{SECOND}")
    assert second.resolution.of_report == FIRST
    assert "train.npz" not in Path("out", SECOND).read_text()


def test_a_second_report_of_earlier_weights_is_left_out(run, folder):
    run(*CAPTURE, "--also-at", "2")
    alone = run(*CAPTURE, "--force", "--model", "resolution_networks:make_fixed")
    assert alone.code == 0, alone.err
    result = run("diagnose", "out", "--json")
    assert f"left out: out/{SECOND}: it is of other weights or samples" in result.err
    assert "resolution_dependent" in str(result.document["skipped"])
    first, second = (ft.load_report(f"out/{name}") for name in (FIRST, SECOND))
    assert not [one for one in ft.diagnose(first, second) if one.rule == "resolution_dependent"]
