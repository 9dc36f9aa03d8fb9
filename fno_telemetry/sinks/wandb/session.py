"""What all W&B runs in this process share: settings, W&B's own process, and variables that it reads."""

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fno_telemetry.errors import SinkUnavailable
from fno_telemetry.wording import to_one_line

LONGEST_REASON = 240  # characters

_SERVICE, _CACHE = "WANDB_SERVICE", "WANDB_CACHE_DIR"
_ROOM = 65_536  # bytes that a disk must still have for a log; a full one takes an empty file

# What W&B's settings hold where the process is part of no sweep and no launch job.
_WITHOUT_A_SWEEP: dict[str, Any] = {"sweep_id": None, "sweep_param_path": None, "launch": False}


def find_session() -> Any:
    """Return what W&B's runs in this process have in common; SinkUnavailable when W&B does not start."""
    import wandb
    from wandb.sdk import wandb_setup

    # Unlike `setup`, `singleton` does not start W&B's process already, but it is not a public interface.
    find = getattr(wandb_setup, "singleton", wandb.setup)
    try:
        session = find()
        _ = session.settings
    except Exception as error:
        raise SinkUnavailable(f"W&B cannot start: {to_one_line(str(error), LONGEST_REASON)}") from error
    return session


@contextlib.contextmanager
def outside_of_a_sweep() -> Iterator[None]:
    """Keep a run that starts here out of the sweep or launch job that the process belongs to.

    In one, W&B ignores the id, the project and the entity that `init` is given: the run would be the
    training's own, and have the hyperparameters of the sweep in its configuration.
    """
    session = find_session()
    settings = session.settings
    known = type(settings).model_fields
    kept = {name: getattr(settings, name) for name in _WITHOUT_A_SWEEP if name in known}
    hyperparameters = getattr(session, "_sweep_config", None)
    for name in kept:
        setattr(settings, name, _WITHOUT_A_SWEEP[name])
    session._sweep_config = None
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(settings, name, value)
        session._sweep_config = hyperparameters


def start_service() -> None:
    """Start W&B's own process, or connect to one that another process of the user's has started.

    WANDB_SERVICE may name a process that has ended; then there is a new one. The variable is as before
    afterwards: what this process starts later is no part of its telemetry.
    """
    session = find_session()
    if getattr(session, "_connection", None) is not None or not hasattr(session, "ensure_service"):
        return
    with _with_variable(_CACHE, _usable_cache()), _with_variable(_SERVICE, os.environ.get(_SERVICE, "")):
        try:
            session.ensure_service()
        except Exception:
            if not os.environ[_SERVICE]:
                raise
            os.environ[_SERVICE] = ""
            session.ensure_service()


def _usable_cache() -> str:
    """Return a place for the log of W&B's process, which it would print where it cannot write it.

    It is the usual one, or else one that is removed at the end of this process.
    """
    from wandb.env import get_cache_dir

    usual = get_cache_dir()
    try:
        (usual / "logs").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=usual / "logs") as file:
            file.write(bytes(_ROOM))
    except OSError:
        made = tempfile.mkdtemp(prefix="fno-telemetry-")
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        return made
    return str(usual)


@contextlib.contextmanager
def _with_variable(variable: str, value: str) -> Iterator[None]:
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before


@contextlib.contextmanager
def without_error_reports() -> Iterator[None]:
    """Keep W&B from reporting on itself to its server, unless the user has configured it.

    Where that server never answers, as with many firewalls, this would delay the end of the process by half
    a minute, in offline runs too.
    """
    with _unless_decided("WANDB_ERROR_REPORTING", "false"):
        yield


@contextlib.contextmanager
def stage_in(folder: Path) -> Iterator[None]:
    """Have W&B keep files for upload there, not in the user's home, unless the user has decided.

    `wandb sync` uploads them from there later, so they must last as long as the run's folder.
    """
    with _unless_decided("WANDB_DATA_DIR", str(folder)):
        yield


@contextlib.contextmanager
def _unless_decided(variable: str, value: str) -> Iterator[None]:
    with contextlib.nullcontext() if variable in os.environ else _with_variable(variable, value):
        yield
