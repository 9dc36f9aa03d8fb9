"""The sinks that a command writes to, made from the names and options that the user typed."""

from collections.abc import Iterable, Mapping, Sequence

import fno_telemetry as ft
from fno_telemetry import plugins, sinks, sources
from fno_telemetry.wording import hint_at_names
from fno_telemetry_cli.options.output import WandbOptions

_OF_PROGRAMS = ("json.path", "tensorboard.writer", "wandb.run", "wandb.commit")
"""Arguments of sinks that only a program can give, or that `--output` decides."""


def choose_sinks(
    typed: Sequence[str],
    wandb: WandbOptions,
    options: Sequence[str],
    always: Sequence[str] = ("json",),
    group: str | None = None,
    detail: str | None = None,
) -> list[ft.Sink]:
    """Return the sinks of these comma lists, after `always`; TelemetryError for what cannot be made.

    `options` are `NAME.KEY=VALUE` texts. `group` is the group of W&B runs; by default it is the experiment.
    `detail` is given to every sink that has this option.
    """
    names = [name.strip() for part in typed for name in part.split(",")]
    if not all(names):
        raise ft.OptionError(f"--sink {','.join(typed)!r}: an empty name; expected a name, or json,wandb")
    if wandb.typed and "wandb" not in names:
        raise ft.OptionError(f"--wandb-{next(iter(wandb.typed))} is for the wandb sink; add --sink wandb")
    chosen = list(dict.fromkeys([*always, *names]))
    given = {name: dict(values) for name, values in _parse(options, chosen).items()}
    if "wandb" in chosen:
        given["wandb"] = _wandb_options(wandb, given.get("wandb", {}), group)
    if detail is not None:
        _add_detail(detail, chosen, given)
    return [sinks.make_sink(name, given.get(name, {})) for name in chosen]


def _parse(texts: Iterable[str], chosen: Sequence[str]) -> dict[str, dict[str, object]]:
    """Return the options of each sink; OptionError for what cannot be used."""
    found: dict[str, dict[str, object]] = {}
    for text in texts:
        name, dot, setting = text.partition(".")
        typed_key, equals, _ = setting.partition("=")
        if dot and not name.strip():
            raise ft.OptionError(
                f"--sink-option {text!r}: NAME, the sink, is missing; expected NAME.KEY=VALUE"
            )
        if not dot or "=" in name or not equals or not typed_key.strip().isidentifier():
            raise ft.OptionError(f"--sink-option {text!r}: expected NAME.KEY=VALUE, as in wandb.project=mine")
        if name not in plugins.names("sinks"):
            hint = hint_at_names(name, plugins.names("sinks"))
            raise ft.OptionError(f"--sink-option {text}: no sink is called {name!r}. {hint}")
        if name not in chosen:
            raise ft.OptionError(
                f"--sink-option {text}: the sink {name!r} is not chosen; add --sink {name}, or leave this out"
            )
        _refuse_unknown(text, name, typed_key.strip())
        key, value = sources.parse_setting(setting, "sink_option", prefix=f"{name}.")
        if (expected := sinks.find_misfit(name, key, value)) is not None:
            raise ft.OptionError(f"--sink-option {text}: expected {expected} for {key}")
        if key in found.setdefault(name, {}):
            raise ft.OptionError(f"--sink-option {text}: {name}.{key} is given twice; leave one out")
        found[name][key] = value
    return found


def _refuse_unknown(text: str, name: str, key: str) -> None:
    """Raise OptionError for a key that the sink does not have, or that only a program can give."""
    if f"{name}.{key}" in _OF_PROGRAMS:
        raise ft.OptionError(f"--sink-option {text}: {name}.{key} cannot be given on the command line")
    known = sinks.list_options(name)
    if known is None or key in known:
        return
    usable = [option for option in known if f"{name}.{option}" not in _OF_PROGRAMS]
    if not usable:
        raise ft.OptionError(
            f"--sink-option {text}: the sink {name!r} has no options for the command line; leave this out"
        )
    raise ft.OptionError(
        f"--sink-option {text}: the sink {name!r} has no option {key!r}. {hint_at_names(key, usable)}"
    )


def _wandb_options(wandb: WandbOptions, given: Mapping[str, object], group: str | None) -> dict[str, object]:
    """Return what `--wandb-…` and `--sink-option wandb.…` set together; OptionError for what both set."""
    if twice := sorted(wandb.typed.keys() & given.keys()):
        raise ft.OptionError(f"give --wandb-{twice[0]} or --sink-option wandb.{twice[0]}, not both")
    return {"group": group} | wandb.typed | dict(given)


def _add_detail(detail: str, chosen: Sequence[str], given: dict[str, dict[str, object]]) -> None:
    """Add the option to the sinks that have it; OptionError for a wrong value, or one that nothing takes."""
    if detail not in sinks.DETAILS:
        raise ft.OptionError(f"--detail {detail!r}: expected {' or '.join(sinks.DETAILS)}")
    taking = [name for name in chosen if "detail" in (sinks.list_options(name) or ())]
    if not taking:
        raise ft.OptionError(f"--detail {detail} is for dashboards; add --sink tensorboard, or wandb")
    for name in taking:
        if "detail" in given.setdefault(name, {}):
            raise ft.OptionError(f"give --detail or --sink-option {name}.detail, not both")
        given[name]["detail"] = detail
