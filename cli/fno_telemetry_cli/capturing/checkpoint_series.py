"""The checkpoints that a command names: globs expanded, in order of their steps, each with a label."""

# Annotations name classes whose modules import torch; they are not evaluated.
from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import fno_telemetry as ft
from fno_telemetry import records, report, sources
from fno_telemetry_cli.failures import Failure
from fno_telemetry_cli.options.model import WeightOptions


@dataclass(frozen=True)
class Listed:
    """One checkpoint of several, and what distinguishes it from the others."""

    path: Path
    name: str
    step: int | None
    step_kind: records.StepKind | None

    @property
    def label(self) -> str:
        """As in the names of reports: step1000, epoch3, or the checkpoint's name."""
        return records.step_label(self.step, self.step_kind, self.name)


@dataclass(frozen=True)
class CheckpointSeries:
    """What can be captured, by ascending step and then what has none; what cannot; what is left out."""

    listed: tuple[Listed, ...] = ()
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()


def is_several(given: Sequence[Path]) -> bool:
    """Whether these arguments ask for a report per checkpoint: more than one, or a glob."""
    return len(given) > 1 or any(_is_pattern(path) for path in given)


def expand_globs(given: Iterable[Path]) -> tuple[Path, ...]:
    """Return the files that paths and globs name, each once; OptionError for a glob that matches none."""
    found: dict[Path, Path] = {}
    for path in given:
        matches = [path]
        if _is_pattern(path):
            # Path.glob takes no absolute pattern.
            names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
            matches = [whole for name in names if (whole := _find_whole(Path(name))) is not None]
            if not matches:
                raise ft.OptionError(f"--checkpoint {path}: no file matches, and no folder with weights")
        for match in matches:
            location = sources.find_whole(match)
            found.setdefault((location.main if location else match).resolve(), match)
    return tuple(found.values())


def is_checkpoint(path: Path) -> bool:
    """Return whether a path is a checkpoint and not a report, a folder of reports, or a history."""
    if path.is_dir():
        return sources.find_whole(path) is not None and not any(path.glob("activation_report*.json"))
    if report.is_history(path):
        return False
    return path.suffix != ".json" or path.name.endswith(sources.INDEX_ENDING)


def read_series(paths: Sequence[Path], weights: WeightOptions) -> CheckpointSeries:
    """Read the step of each checkpoint. One that cannot be read is a failure, not an error.

    Epochs count only where no two checkpoints share one. OptionError when steps and epochs would be mixed, or
    two checkpoints of one step hold different weights.
    """
    listed: list[Listed] = []
    failures: list[Failure] = []
    for path, name in zip(paths, names_of_all(paths), strict=True):
        try:
            # Only its step is kept: the weights of all of them may be more than fits into memory.
            checkpoint = _read(path, weights)
        except ft.CheckpointError as error:
            failures.append(Failure.of(path, error))
        else:
            listed.append(Listed(path, name, checkpoint.step, checkpoint.step_kind))
    _refuse_mixed_kinds(listed)
    kept, notes = _without_copies(listed, weights)
    stepped = sorted((one for one in kept if one.step is not None), key=lambda one: one.step or 0)
    stepless = [one for one in kept if one.step is None]
    return CheckpointSeries((*stepped, *stepless), tuple(failures), tuple(notes))


def _read(path: Path, weights: WeightOptions) -> sources.Checkpoint:
    return sources.read_checkpoint(path, trust=weights.trust_checkpoint, weights=weights.weight_set)


def _find_whole(match: Path) -> Path | None:
    """Return the checkpoint that a match of a glob belongs to: itself, or the one of which it is a file."""
    whole = sources.find_whole(match)
    if whole is None or match.is_dir():
        return match if whole else None
    return whole.main


def _is_pattern(path: Path) -> bool:
    # A file may have brackets in its name.
    return glob.has_magic(str(path)) and not path.exists()


def names_of_all(paths: Sequence[Path]) -> list[str]:
    """Return a name for each file: its stem, after as many folders as distinguish it from the others."""
    folders = [path.resolve().parent for path in paths]
    by_stem = distinguish([folder / path.stem for folder, path in zip(folders, paths, strict=True)])
    by_name = distinguish([folder / path.name for folder, path in zip(folders, paths, strict=True)])
    return by_stem or by_name or [path.stem for path in paths]


def distinguish(paths: Sequence[Path]) -> list[str]:
    """Return the last part of each path, after as many as distinguish them all; [] if nothing does."""
    for depth in range(1, max((len(path.parts) for path in paths), default=0)):
        names = ["-".join(path.parts[1:][-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return []


def _refuse_mixed_kinds(listed: Iterable[Listed]) -> None:
    kinds: dict[str, Path] = {}
    for one in listed:
        if one.step_kind is not None:
            kinds.setdefault(one.step_kind, one.path)
    if len(kinds) > 1:
        (kind, path), (other_kind, other), *_ = kinds.items()
        raise ft.OptionError(
            f"--checkpoint: {path} counts in {kind}s and {other} in {other_kind}s; one series cannot "
            "have both. Capture them by two commands with different --output"
        )


def _without_copies(listed: Sequence[Listed], weights: WeightOptions) -> tuple[list[Listed], list[str]]:
    """Leave out copies: the same weights at the same step, such as `last.ckpt`.

    Several saves of one epoch show that epochs do not count the saves; then none of them is a step.
    """
    kept: dict[object, list[Listed]] = {}
    notes = []
    for one in listed:
        alike = kept.setdefault(one.path if one.step is None else one.step, [])
        copied = next((other for other in alike if _same_weights(other.path, one.path, weights)), None)
        if copied is not None:
            notes.append(f"{one.path} is left out: it holds the same weights as {copied.path}")
        elif alike and one.step_kind != "epoch":
            raise ft.OptionError(
                f"--checkpoint: {alike[0].path} and {one.path} are both of {one.step_kind} {one.step} and "
                "hold different weights; capture each run by its own command with its own --output"
            )
        else:
            alike.append(one)
    found = [one for alike in kept.values() for one in alike]
    if shared := next((alike for alike in kept.values() if len(alike) > 1), None):
        notes.append(
            f"{shared[0].path} and {shared[1].path} are both of epoch {shared[0].step}, so epochs are not "
            "taken for steps: each report has the name of its checkpoint"
        )
        found = [replace(one, step=None, step_kind=None) for one in found]
    return found, notes


def _same_weights(one: Path, other: Path, weights: WeightOptions) -> bool:
    import torch

    first, second = (_read(path, weights).tensors for path in (one, other))
    if first.keys() != second.keys():
        return False
    return all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )
