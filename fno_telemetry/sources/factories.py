"""Networks made from what users type: a built-in name or `pkg.mod:factory`, and `key=value` settings."""

import contextlib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fno_telemetry.architectures.contract import Architecture
from fno_telemetry.errors import CheckpointError, ModelError, OptionError, PluginNotFound
from fno_telemetry.files import parse_toml
from fno_telemetry.sources.checkpoints import Checkpoint
from fno_telemetry.sources.subtrees import subtrees
from fno_telemetry.sources.unpickling import make_working_folder_importable
from fno_telemetry.sources.weight_loading import WeightMatch, load_weights
from fno_telemetry.wording import find_near_names, hint_at_names

DEFAULT_ARCHITECTURE = "fno"


@dataclass(frozen=True, eq=False)
class Network:
    """A network ready to run, and how it came about."""

    model: nn.Module
    architecture: str
    arguments: Mapping[str, object]
    weights: str  # "checkpoint", or "untrained, seed 0"
    warnings: tuple[str, ...] = ()
    match: WeightMatch | None = None  # None without a checkpoint


def parse_settings(items: Iterable[str]) -> dict[str, object]:
    """Return the arguments that `key=value` texts give: TOML values, or a bare word as a string.

    The last of several values for a key counts. OptionError for anything else.
    """
    return dict(parse_setting(item, "settings") for item in items)


def parse_setting(item: str, argument: str, prefix: str = "") -> tuple[str, object]:
    """Return key and value of one `key=value` text, given as `argument`; see `parse_settings`.

    Messages quote the text with `prefix`, which was typed in front of it.
    """
    key, equals, text = (part.strip() for part in item.partition("="))
    if not equals or not key.isidentifier():
        raise OptionError(
            f"`{argument}` {prefix + item!r}: expected key=value, where key is the name of an argument."
        )
    return key, _parse_value(prefix + item, text, argument)


def import_object(spec: str) -> Any:
    """Return what `pkg.mod:attribute` names, also from the working folder; ModelError when that fails."""
    module_name, colon, attribute = spec.partition(":")
    if not colon or not module_name or not attribute:
        raise ModelError(f"{spec!r}: expected package.module:attribute, such as mymodels.fno:build.")
    if not all(part.isidentifier() for part in module_name.split(".")) or module_name.endswith(".py"):
        raise ModelError(
            f"{spec!r}: {module_name!r} is not a module's dotted name. Write models/fno.py as models.fno"
        )
    make_working_folder_importable()
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if f"{module_name}.".startswith(f"{error.name}."):
            raise ModelError(
                f"{spec!r}: there is no module {error.name!r}, neither installed nor in the working folder."
            ) from error
        raise ModelError(f"{spec!r}: {module_name} needs another module: {error}. Install it.") from error
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise ModelError(f"{spec!r}: importing {module_name} failed with {_brief(error)}") from error
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            near = find_near_names(name, [known for known in dir(found) if not known.startswith("_")])
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ModelError(f"{spec!r}: {module_name} has no attribute {attribute!r}.{hint}") from error
        except Exception as error:  # modules that import on demand
            raise ModelError(f"{spec!r}: getting {attribute!r} failed with {_brief(error)}") from error
    return found


def build_from_factory(spec: str, settings: Mapping[str, object], seed: int) -> nn.Module:
    """Return the network that `pkg.mod:factory` names or makes, its random weights drawn from `seed`.

    The global random state of torch is left as it was. ModelError, one line, for every way this can fail.
    """
    # Seeded apart, so that what a first import draws does not change the weights.
    with _seeded(seed):
        found = import_object(spec)
    if isinstance(found, nn.Module):
        if settings:
            raise ModelError(
                f"{spec!r} is a finished network and takes no `settings`. Name its class instead."
            )
        return found
    if not callable(found):
        raise ModelError(
            f"{spec!r} is of type {type(found).__name__}; a network, its class or a function was expected."
        )
    _refuse_unknown(spec, found, settings)
    try:
        with _seeded(seed):
            model = found(**settings)
    except (Exception, SystemExit) as error:  # a user's constructor may raise anything
        given = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        raise ModelError(f"{spec!r} called with ({given}) failed with {_brief(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec!r} returned a {type(model).__name__}; a torch.nn.Module was expected.")
    return model


def build_network(
    architectures: Mapping[str, Architecture],
    name: str | None,
    *,
    checkpoint: Checkpoint | None,
    settings: Mapping[str, object],
    channels: int,
    size: int,
    seed: int,
    allow_missing: bool = False,
) -> Network:
    """Return a named network for data of `channels` channels and `size` pixels, with its weights.

    With a checkpoint its width, depth, modes and so on are read from the weights; `settings` override all.
    When `name` is None the checkpoint decides, or else it is `fno`. Without one, weights come from `seed`;
    the global random state of torch is left as it was. ModelError, CheckpointError or OptionError, one line.
    """
    found: dict[str, object] = {}
    if name is not None and name not in architectures:
        raise PluginNotFound(f"No architecture is called {name!r}. {hint_at_names(name, architectures)}")
    if checkpoint is not None:
        name, found = _recognise(architectures, name, checkpoint)
    name = name or DEFAULT_ARCHITECTURE
    defaults = architectures[name].defaults(channels, size)
    arguments = defaults | found | dict(settings)
    _refuse_other_channels(arguments, channels, checkpoint)
    with _seeded(seed):
        model = architectures[name].build(**arguments)
    if checkpoint is None:
        return Network(model, name, arguments, f"untrained, seed {seed}")
    match = load_weights(model, checkpoint, allow_missing=allow_missing)
    warnings = match.warnings
    # A transform has no parameters, so only hyper parameters can tell of it.
    if "input_transform" in defaults.keys() - found.keys() - settings.keys():
        warnings += (
            f"{checkpoint.path} does not say its input_transform: {defaults['input_transform']!r} assumed. "
            'If it was trained with another, add `settings={"input_transform": "sqrt"}` '
            "(or log1p, instancenorm).",
        )
    return Network(model, name, arguments, "checkpoint", warnings, match)


def _refuse_unknown(spec: str, factory: Callable[..., Any], settings: Mapping[str, object]) -> None:
    """Raise ModelError for a setting that the factory has no argument for, where its signature tells."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # of what is written in C
        return
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [parameter.name for parameter in parameters if parameter.kind in by_keyword]
    for name in settings:
        if name not in known:
            hint = hint_at_names(name, known) if known else "It has none."
            raise ModelError(f"{spec!r} has no argument {name!r}. {hint}")


def _recognise(
    architectures: Mapping[str, Architecture], name: str | None, checkpoint: Checkpoint
) -> tuple[str, dict[str, object]]:
    """Return the architecture to build and what the checkpoint says of its arguments.

    A named architecture that recognises nothing is still tried, unless the weights are plainly another's.
    """
    first: str | None = None
    for tree in subtrees(checkpoint):
        shapes = {brief: tuple(tree.tensor(brief).shape) for brief in tree.names}
        for candidate, architecture in architectures.items():
            arguments = architecture.arguments(shapes, checkpoint.hyper_parameters)
            if arguments is not None and name in (None, candidate):
                return candidate, arguments
            # A network of another kind may well have one of these inside it.
            if arguments is not None and tree.rank < 2:
                first = first or candidate
    if first is not None:
        raise CheckpointError(
            f"{checkpoint.path}: these are weights of {first!r}, not of {name!r}. "
            f'Use `architecture="{first}"`.'
        )
    if name is None:
        raise CheckpointError(
            f"{checkpoint.path}: these are weights of no known architecture ({', '.join(architectures)}). "
            'Give the network by `model="package.module:factory"`.'
        )
    return name, {}


def _refuse_other_channels(
    arguments: Mapping[str, object], channels: int, checkpoint: Checkpoint | None
) -> None:
    """Raise when the network would not take the data; architectures without `C` are left to their forward."""
    patches, each = arguments.get("C"), arguments.get("in_channels", 1)
    if not isinstance(patches, int) or not isinstance(each, int) or patches * each == channels:
        return
    wanted = f"{patches * each} channels (C={patches}, in_channels={each})"
    if checkpoint is not None:
        raise CheckpointError(
            f"{checkpoint.path}: its network takes {wanted} and the data have {channels}. Give data "
            "with as many channels, or another checkpoint."
        )
    raise OptionError(
        f"`settings`: a network of {wanted} was asked for, and the data have {channels}. Leave C to the data."
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from `seed` inside, and go on outside as if nothing had happened."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: before CUDA is up, that leaves a seed behind for later.
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield


def _parse_value(item: str, text: str, argument: str) -> object:
    """Return the value that the right-hand side of a setting means."""
    with contextlib.suppress(ValueError):  # also numbers too long, brackets too deep
        parsed = parse_toml(f"value = {text}")
        if parsed.keys() == {"value"}:
            return parsed["value"]
    if text in ("True", "False", "None"):
        raise OptionError(
            f"`{argument}` {item}: write true or false; there is no none: leave the argument out."
        )
    number = re.fullmatch(r"[-+.\d][-+.\d_eE]*", text)
    if number or not re.fullmatch(r"[^\s\"'=,#{}\[\]]+", text):
        raise OptionError(
            f"`{argument}` {item}: {text!r} is not a TOML value. If text is meant, quote it: "
            f"'{item.partition('=')[0]}=\"…\"'"
        )
    return text


def _brief(error: BaseException) -> str:
    """Return an error in one line: its type and message."""
    return f"{type(error).__name__}: {error}" if str(error) else f"{type(error).__name__}."
