"""What processes have to say besides numbers: which modules ran, what was not measured and why."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fno_telemetry.measuring.awaited_gradients import Gradients
from fno_telemetry.processes.rows import Measured


@dataclass(frozen=True)
class Taken:
    """What the notes of all processes say that the collector does not hold."""

    gradients: Gradients | None
    called_outside: frozenset[str]
    deviations: tuple[str, ...]


def list_notes(measured: Measured) -> list[str]:
    """Return the notes of a process, each as a text that is the same in every process with this note."""
    collector = measured.collector
    notes = [("fired", name, "") for name in collector.fired]
    notes += [("unmeasured", *entry) for entry in collector.unmeasured.items()]
    notes += [("failure", *entry) for entry in collector.failures().items()]
    notes += [("outside", name, "") for name in measured.called_outside]
    notes += [("deviation", line, "") for line in measured.deviations]
    if measured.gradients is not None:
        notes += [("gradient failure", *entry) for entry in measured.gradients.failures.items()]
        notes += [("gradient warning", line, "") for line in measured.gradients.warnings]
    return [json.dumps(note) for note in notes]


def take_notes(notes: Sequence[str], measured: Measured, gradients: Gradients | None) -> Taken:
    """Give the notes of all processes to the collector of this one, and return the others."""
    collector = measured.collector
    outside, deviations, failures, warnings = [], [], {}, []
    for kind, name, reason in map(json.loads, notes):
        match kind:
            case "fired":
                collector.fired.add(name)
            case "unmeasured":
                collector.note_unmeasured(name, reason)
            case "failure":
                collector.errors.setdefault(name, reason)
            case "outside":
                outside.append(name)
            case "deviation":
                deviations.append(name)
            case "gradient failure":
                failures[name] = reason
            case "gradient warning":
                warnings.append(name)
    if gradients is not None:
        gradients = replace(gradients, failures=failures, warnings=tuple(warnings))
    return Taken(gradients, frozenset(outside), tuple(deviations))
