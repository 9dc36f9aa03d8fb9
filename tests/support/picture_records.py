"""Records that pictures are made of: healthy and broken, shallow and deep, hostile, without numbers."""

from dataclasses import replace

from fno_telemetry.diagnosis import example_records
from fno_telemetry.records import CaptureRecord, FrozenMapping, freeze_mapping
from fno_telemetry.testing import example_record

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{1}{0}$",
    "]]>--><!--",
    "\u202eevil\x1b[2J\x00",
    "层" * 60,
    "a" * 400,
)


def example() -> CaptureRecord:
    """Return a record with an entry of every kind, and findings."""
    return example_record.add_findings(example_record.example())


def healthy(step: int = 0) -> CaptureRecord:
    """Return a healthy record with a target and blocks."""
    return example_records.set_step(example_records.add_target(example_records.healthy_record()), step)


def deep(layers: int = 60, name: str = "encoder.fno_blocks.{}.a_module_with_a_long_name") -> CaptureRecord:
    """Return a record of so many layers with a role."""
    record = example_record.example()
    model = record.modules[1]
    modules = [replace(model, name=name.format(index), order=index) for index in range(layers)]
    return replace(record, modules=tuple(modules))


def hostile() -> CaptureRecord:
    """Return a record whose modules have names that a page must not obey."""
    record = example_record.add_findings(deep(len(HOSTILE)))
    modules = [replace(module, name=name) for module, name in zip(record.modules, HOSTILE, strict=True)]
    blocks = [replace(block, name=name) for block, name in zip(record.blocks, HOSTILE, strict=False)]
    findings = [replace(finding, layer=HOSTILE[0], message=HOSTILE[1]) for finding in record.findings or ()]
    return replace(record, modules=tuple(modules), blocks=tuple(blocks), findings=tuple(findings))


def bare() -> CaptureRecord:
    """Return a record without any number."""
    record = example_record.example()
    modules = tuple(
        replace(module, stats=FrozenMapping({}), histogram=None, log_histogram=None, spectrum=None)
        for module in record.modules
    )
    blocks = tuple(replace(block, stats=FrozenMapping({})) for block in record.blocks)
    empty = {"input": None, "output": None, "inputs": (), "outputs": (), "target": None, "accuracy": None}
    return replace(record, modules=modules, blocks=blocks, **empty)


def series(count: int = 5, record: CaptureRecord | None = None) -> list[CaptureRecord]:
    """Return records of so many steps, each with a loss."""
    one = record or example()
    return [
        replace(
            one,
            summary=freeze_mapping({**one.summary, "checkpoint_step": 10 * index, "loss": 1 / (1 + index)}),
        )
        for index in range(count)
    ]


def broken_run(count: int = 6) -> list[CaptureRecord]:
    """Return a run of which the last steps are broken, from one layer on."""
    run = [example_records.set_step(example_records.healthy_record(), step) for step in range(count)]
    place = run[0].modules[3].name
    return [
        record if step < 4 else example_records.change_module(record, place, rms=1e4, abs_p99=1e5)
        for step, record in enumerate(run)
    ]
