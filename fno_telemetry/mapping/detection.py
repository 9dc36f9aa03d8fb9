"""Structure detection on a batch, after which model, batch and random states are as before."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from fno_telemetry.errors import MapError, ModelError, TelemetryError
from fno_telemetry.isolation.attributes import Attribute
from fno_telemetry.isolation.preservation import Preserved, preserve
from fno_telemetry.mapping.call_inputs import list_field_shapes
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.mapping.model_map import GivenRole
from fno_telemetry.mapping.structure import detect_structure
from fno_telemetry.tracing.module_calls import paths_by_module
from fno_telemetry.tracing.nested_tensors import copy_tensors, tensors_in
from fno_telemetry.wording import find_near_names


@dataclass(frozen=True)
class Detected:
    """The plan of a model, and what its first forward built."""

    plan: MeasurementPlan
    built: tuple[
        Attribute, ...
    ] = ()  # attributes that stay as the first forward left them, with what it built


@dataclass(frozen=True)
class _Sample:
    batch: Any
    run: Callable[[Any], object]
    given: Mapping[str, GivenRole] | None
    around: Preserved  # has copies of the parameters
    in_training: bool = False

    def set_mode(self, model: nn.Module) -> None:
        """Put the model into the mode in which it is measured."""
        if not self.in_training:
            set_to_eval(model)


def detect(
    model: nn.Module,
    batch: Any,
    run: Callable[[Any], object],
    given: Mapping[str, GivenRole] | None,
    preserved: Preserved,
    in_training: bool = False,
) -> Detected:
    """Put the model into eval mode and detect its structure, without gradients unless its forward needs them.

    With `in_training` the mode of every module stays as it is. `preserved` is the block around this one; it
    leaves attributes as they are if the model is built by its first forward.
    """
    sample = _Sample(batch, run, given, preserved, in_training)
    sample.set_mode(model)
    found = _detect_built(model, sample, preserved)
    differentiates = isinstance(found, Exception)
    if isinstance(found, Exception):
        error = found
        with with_gradients():
            found = _detect_built(model, sample, preserved)
        try:
            if isinstance(found, Exception):
                # What a forward that differentiates raises without gradients says nothing of other faults.
                raise found if "grad" in str(error) else error
        finally:
            del error  # it holds the tensors of its forward
    plan, built = found
    known = {mapped.name for mapped in plan.model_map.modules}
    known |= {name for names in paths_by_module(model).values() for name in names}
    for name in given or ():
        if name not in known:
            near = ", ".join(find_near_names(name, sorted(known), least_likeness=0))
            raise MapError(f"a role is given for {name!r}, but the model has no such module; similar: {near}")
    plan = replace(plan, differentiates=differentiates, field_shapes=list_field_shapes(batch))
    return Detected(plan, tuple(built))


@contextlib.contextmanager
def with_gradients() -> Iterator[None]:
    """Run the block with gradients, whatever the caller's mode is."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def count_samples(batch: object) -> int | None:
    """Return the size of the first axis of the first tensor; None if it has none."""
    first = next(tensors_in(batch), None)
    with contextlib.suppress(
        Exception
    ):  # nested tensors have no shape, and foreign tensors may refuse anything
        return first.size(0) if first is not None and first.dim() else None
    return None


def _detect_built(
    model: nn.Module, sample: _Sample, preserved: Preserved
) -> tuple[MeasurementPlan, list[Attribute]] | Exception:
    """Detect the structure, again if the forward builds modules, which had no hooks; return its error."""
    try:
        plan, built = _detect_on_sample(model, sample, None)
        if built is None:
            return plan, []
        sample.set_mode(model)
        plan, built = _detect_on_sample(model, sample, preserved)
        if built is None:
            return plan, []
        # An attribute that was put back made the forward build them once more, so now attributes stay.
        sample.set_mode(model)
        return _detect_on_sample(model, sample, None)[0], built
    except (TelemetryError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a forward may raise anything; it is raised by the caller
        return error


def _detect_on_sample(
    model: nn.Module, sample: _Sample, preserved: Preserved | None
) -> tuple[MeasurementPlan, list[Attribute] | None]:
    """Detect the structure on the first sample if the batch can be sliced, which is much cheaper."""
    batch = sample.batch
    if isinstance(batch, torch.Tensor) and not batch.is_nested and batch.ndim > 1 and batch.shape[0] > 1:
        # Some models only take whole batches.
        with contextlib.suppress(Exception):
            return _detect_once(model, batch[:1], 1, sample, preserved)
    return _detect_once(model, batch, count_samples(batch), sample, preserved)


def _detect_once(
    model: nn.Module, batch: Any, batch_size: int | None, sample: _Sample, preserved: Preserved | None
) -> tuple[MeasurementPlan, list[Attribute] | None]:
    """Detect the structure; also return the attributes that stay if the forward built parts, else None.

    With `preserved`, attributes and buffers then stay as the forward left them.
    """
    built: list[Attribute] | None = None

    def run_once(followed: contextlib.AbstractContextManager[None]) -> None:
        nonlocal built
        copied = copy_tensors(batch)
        try:
            with preserve(model, parameters=False) as own:
                with followed:
                    sample.run(copied)
                if own.has_new_parts(replaced=preserved is not None):
                    built = [] if preserved is None else own.accept()
                    if preserved is not None:
                        preserved.accept()
        finally:
            # One copy of the parameters serves all forwards.
            sample.around.put_back_parameters()

    return detect_structure(model, run_once, batch_size, sample.given), built


def set_to_eval(model: nn.Module) -> None:
    """Put a model into eval mode; ModelError for one that has none."""
    try:
        model.eval()
    except NotImplementedError as error:
        # Exported programs raise this: they are one function and keep modules only for their weights.
        raise ModelError(f"{error} Capture the model that it was exported from") from error
