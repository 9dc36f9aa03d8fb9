"""The names of parameters: the canonical path of their layer and their own name."""

from collections.abc import Iterator

from torch import nn

from fno_telemetry.tracing.module_calls import paths_by_module


def name_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the canonical path of each parameter, and the parameter; a shared one has its first path.

    What parametrizes a layer has no canonical path: such parameters are named after the layer.
    """
    paths = paths_by_module(model)
    known: dict[str, str] = {}
    seen = set()
    for path, module in model.named_modules():
        before, _, last = path.rpartition(".")
        # A wrapper has none either, and leaves no trace in the names of what it wraps.
        above = known.get(before, "")
        known[path] = paths[id(module)][0] if id(module) in paths else f"{above}.{last}".lstrip(".")
        for own, parameter in module._parameters.items():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            yield f"{known[path]}.{own}".lstrip("."), parameter
