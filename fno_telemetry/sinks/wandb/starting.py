"""How a W&B run is started: without asking, in bounded time, and offline where it cannot be online."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from fno_telemetry.errors import MissingExtra, OptionError, SinkUnavailable
from fno_telemetry.sinks.overview import Detail
from fno_telemetry.sinks.wandb.session import (
    LONGEST_REASON,
    find_session,
    outside_of_a_sweep,
    start_service,
    without_error_reports,
)
from fno_telemetry.wording import to_one_line

if TYPE_CHECKING:
    from wandb import Settings
    from wandb.sdk.wandb_run import Run

ModeName = Literal["online", "offline", "disabled"]

MODES: tuple[ModeName, ...] = get_args(ModeName)

FLUSH_SECONDS = 0.2
"""How often W&B puts rows on disk; a kill loses what came after. `flush` waits for it, so it is short."""

# What W&B's settings may call a mode; two names are of older versions.
_MODE_NAMES: dict[str, ModeName] = {"run": "online", "dryrun": "offline", **{mode: mode for mode in MODES}}
_LONGEST_NAME = 128  # of a project, group or run
_REFUSED = re.compile(r"[/\\#?%:\x00-\x1f\x7f]")

# Nothing that is not in the record leaves the machine: no host, program, packages, git state or console.
_QUIET: dict[str, Any] = {
    "silent": True,
    "quiet": True,
    "show_info": False,
    "show_warnings": False,
    "show_errors": False,
    "console": "off",
    "host": "",
    "program": "",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "disable_job_creation": True,
    "label_disable": True,
    "x_save_requirements": False,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_transaction_log_flush_interval": FLUSH_SECONDS,
    "use_dot_wandb": False,
    "symlink": False,
    "allow_val_change": True,
    "finish_timeout_raises": True,
}


@dataclass(frozen=True)
class Mode:
    """The mode of runs, and a sentence that says why it is not online."""

    name: ModeName
    why: str | None = None


@dataclass(frozen=True)
class Plan:
    """What all runs that one sink starts have in common; timeouts in seconds."""

    folder: Path
    project: str
    entity: str | None
    group: str
    init_timeout: float
    finish_timeout: float
    redacted: bool = False
    alert: bool = False
    detail: Detail = "overview"
    pictures: bool = True


def check_name(argument: str, name: str) -> str:
    """Return the name of a project, entity or group; OptionError when W&B would refuse it later."""
    if not isinstance(name, str) or not name.strip() or name != name.strip():
        raise OptionError(f"`{argument}` {name!r}: a name without blanks around it was expected")
    found = _REFUSED.search(name)
    if found:
        raise OptionError(
            f"`{argument}` {name!r}: W&B allows none of / \\ # ? % : in a name, found {found[0]!r}"
        )
    if len(name) > _LONGEST_NAME:
        raise OptionError(f"`{argument}` has {len(name)} characters: at most {_LONGEST_NAME} were expected")
    return name


def require_wandb() -> None:
    """Import wandb; MissingExtra when it is not installed."""
    try:
        with without_error_reports():
            import wandb
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "wandb":
            raise MissingExtra("The wandb sink needs wandb: pip install 'fno-telemetry[wandb]'.") from error
        raise SinkUnavailable(f"The installed wandb cannot be imported: {error}") from error
    if not hasattr(wandb, "init"):
        # The folder of earlier runs is called wandb too, and where it lies Python imports it as a package.
        raise MissingExtra("The wandb sink needs wandb: pip install 'fno-telemetry[wandb]'.")


def settle_mode(given: ModeName | None) -> Mode:
    """Return the mode: as given, else as WANDB_MODE or W&B's settings say, else as credentials allow.

    Online without credentials becomes offline, because W&B would ask for them. SinkUnavailable when W&B does
    not start.
    """
    if given in ("offline", "disabled"):
        return Mode(given, f"W&B is {given}, as requested.")
    variable = os.environ.get("WANDB_MODE") or None
    if given is None and variable is not None:
        name = _MODE_NAMES.get(variable)
        if name is None:
            raise SinkUnavailable(f"WANDB_MODE={variable!r}: expected one of {', '.join(MODES)}")
        if name != "online":
            return Mode(name, f"W&B is {name}, because WANDB_MODE says so.")
    settings = _settings()
    if given is None and variable is None and "mode" in settings.model_fields_set:
        name = _MODE_NAMES.get(settings.mode)
        if name in ("offline", "disabled"):
            return Mode(name, f"W&B is {name}, because its settings file says so.")
    reason = _why_no_credentials(settings)
    return Mode("online") if reason is None else Mode("offline", f"W&B is offline: {reason}")


def app_address() -> str:
    """Return the address of the pages of the server that W&B is set to."""
    return str(_settings().app_url)


def why_no_credentials() -> str | None:
    """Return why W&B would ask for a login, which must not happen; None when it finds credentials."""
    return _why_no_credentials(_settings())


def why_unreachable() -> str | None:
    """Return why W&B's server cannot be reached; None when its API answers in time, whatever the answer.

    To be called before W&B's own process starts: without an answer that process may never end, and Python
    waits for it at its own end. The API itself is asked, as a server can show pages while its API hangs.
    """
    import requests  # comes with wandb, and finds proxies and certificates where wandb does
    from wandb.env import get_http_timeout

    address = str(_settings().base_url)
    try:
        requests.post(
            f"{address.rstrip('/')}/graphql",
            json={"operationName": "Reachable", "query": "query Reachable { __typename }"},
            timeout=get_http_timeout(10),  # seconds, unless WANDB_HTTP_TIMEOUT is set
            stream=True,
        ).close()
    except (requests.RequestException, ValueError) as error:
        if isinstance(error, requests.Timeout):
            return f"{address} does not answer"
        if type(error) is requests.ConnectionError:  # its text is of retries and of objects in memory
            return f"{address} cannot be reached"
        return to_one_line(f"{address} cannot be asked: {error}", LONGEST_REASON)
    return None


def start(plan: Plan, mode: Mode, name: str, run_id: str, config: dict[str, Any]) -> "tuple[Run, Mode]":
    """Start a run; return it and the mode that it really has.

    When an online start fails, the run is offline and the mode says why. Its id then is `offline_id(run_id)`,
    because the failed attempt keeps the id until the process ends.
    """
    if mode.name == "online":
        try:
            return _init(plan, "online", name, run_id, config), mode
        except Exception as error:  # noqa: BLE001 - W&B may raise anything, and the offline run has the data
            reason = to_one_line(str(error) or type(error).__name__, LONGEST_REASON)
            mode = Mode("offline", f"W&B is offline, because an online run could not be started: {reason}")
            run_id = offline_id(run_id)
    try:
        return _init(plan, "offline", name, run_id, config), mode
    except Exception as error:
        raise SinkUnavailable(
            f"W&B cannot write to {plan.folder}: {to_one_line(str(error), LONGEST_REASON)}"
        ) from error


def offline_id(run_id: str) -> str:
    """Return the id of the offline run that replaces one that could not be online."""
    return f"{run_id}-offline"


def make_id(experiment: str, *parts: object) -> str:
    """Return an id that is the same for the same experiment and parts, and readable."""
    text = "\0".join(map(str, (experiment, *parts)))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", experiment).strip("-")[:40]
    return f"{slug}-{digest}" if slug else digest


def _init(
    plan: Plan, mode: Literal["online", "offline"], name: str, run_id: str, config: dict[str, Any]
) -> "Run":
    import wandb

    timeouts = {"init_timeout": plan.init_timeout, "finish_timeout": plan.finish_timeout}
    known = wandb.Settings.model_fields
    with without_error_reports(), outside_of_a_sweep():
        start_service()
        return wandb.init(
            entity=plan.entity,
            project=plan.project,
            dir=plan.folder.absolute(),
            id=run_id,
            name=to_one_line(name, _LONGEST_NAME),
            group=to_one_line(plan.group, _LONGEST_NAME),
            job_type="fno-telemetry",
            config=config,
            resume="allow",
            # Otherwise a run that the caller has open would be returned.
            reinit="create_new",
            mode=mode,
            settings=wandb.Settings(**{k: v for k, v in (_QUIET | timeouts).items() if k in known}),
        )


def _settings() -> "Settings":
    settings: Settings = find_session().settings
    return settings


def _why_no_credentials(settings: "Settings") -> str | None:
    """Return why W&B would ask for a login; None when it finds credentials."""
    if getattr(settings, "relogin", False):
        return "WANDB_RELOGIN asks for a new login; run `wandb login` and unset it."
    try:
        # Where W&B itself looks before it asks: the session, the environment, netrc, its settings files.
        from wandb.sdk.lib.wbauth import authenticate_session

        found = bool(
            authenticate_session(
                host=settings.base_url, source="fno-telemetry", prompt=False, update_session=False
            )
        )
    except (ImportError, TypeError):
        # Not a public interface. Without it, only credentials in the settings are found.
        found = bool(settings.api_key or settings.identity_token_file)
    except Exception as error:  # noqa: BLE001 - a key that cannot be used is no key
        return to_one_line(f"its credentials cannot be used: {error}", LONGEST_REASON)
    if found:
        return None
    return f"no credentials for {settings.base_url}; run `wandb login` or set WANDB_API_KEY."
