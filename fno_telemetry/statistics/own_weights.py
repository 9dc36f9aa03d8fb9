"""The weights that a module itself holds, as it uses them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import parametrize

from fno_telemetry.isolation.random_states import RandomStates
from fno_telemetry.statistics.process_shares import own_share


def own_weights(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield a module's own weights as it uses them, also those in lists, factorised or parametrized.

    Of those that are spread over processes, the share of this one.
    """
    for parameter in module.parameters(recurse=False):
        # Asking for all of a spread one would wait for other processes.
        yield own_share(parameter).detach()
    if parametrize.is_parametrized(module):
        # The module uses the weight that the parametrization computes.
        for name, parametrization in module.parametrizations.items():  # type: ignore[union-attr,operator]
            with _kept(parametrization):
                weight = getattr(module, name).detach()
            yield weight
    for child in module.children():
        if isinstance(child, nn.ParameterList | nn.ParameterDict):
            values = child.values() if isinstance(child, nn.ParameterDict) else child
            yield from (value.detach() for value in values if isinstance(value, torch.Tensor))
        elif callable(dense := getattr(child, "to_tensor", None)):
            yield dense().detach()


@contextmanager
def _kept(parametrization: nn.Module) -> Iterator[None]:
    """Run the block with a parametrization in eval mode: in training it may change itself at each use."""
    modes = [(module, module.training) for module in parametrization.modules()]
    states = RandomStates()
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        states.put_back()
