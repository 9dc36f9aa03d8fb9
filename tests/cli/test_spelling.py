"""Messages of the library, which speak of arguments, in the words of the command."""

import pytest

from fno_telemetry_cli.app import COMMANDS, load_command
from fno_telemetry_cli.options.spelling import spell_options


def options():
    """Every option of every command: the command's name, the argument's name, the option."""
    for name in COMMANDS:
        for parameter in load_command(name).params:
            long = [option for option in parameter.opts if option.startswith("--")]
            if long and parameter.name != "help":
                yield name, parameter.name, long[0]


# These are options of the command alone, which the library has no argument for.
OF_THE_COMMAND = {"as_json", "config", "port", "quiet", "save_workspace", "shard", "step", "tensorboard"}
OF_THE_COMMAND |= {"wandb"}


@pytest.mark.parametrize(("command", "argument", "option"), [*options()])
def test_every_argument_is_spelled_as_the_option_that_gives_it(command, argument, option):
    if argument not in OF_THE_COMMAND:
        assert spell_options(f"`{argument}` 'x': wrong") == f"{option} 'x': wrong"


@pytest.mark.parametrize(
    ("message", "spelled"),
    [
        ("`layers` 'nosuch*' matches no module", "--layers 'nosuch*' matches no module"),
        ("`layers` and `exclude` leave nothing", "--layers and --exclude leave nothing"),
        ("`settings` 'a': expected key=value", "--set 'a': expected key=value"),
        ('add `axes="HW"` for one field', "add --axes HW for one field"),
        ("add `trust=True`; better, save it", "add --trust-checkpoint; better, save it"),
        ("lower `max_samples=8`", "lower --max-samples 8"),
        ('`settings={"a": 1, "b": "c"}`', "--set a=1 --set b=c"),
        ("`settings={n_blocks: …}`", "--set {n_blocks: …}"),
        ('`mode="online"`', "--wandb-mode online"),
        ("`fno-telemetry map` shows it", "`fno-telemetry map` shows it"),
        ("`forward=` must call it", "`forward=` must call it"),
        ("a `nn.Module` or `None`", "a `nn.Module` or `None`"),
        ("give `inputs=0, target=1`", "give --inputs 0 --target 1"),
        ("`inputs=['x', 'm'], target='y'` fits", "--inputs x,m --target y fits"),
        ("`inputs=0, unknown=1`", "`inputs=0, unknown=1`"),
        ("no backticks", "no backticks"),
    ],
)
def test_a_message_reads_as_the_user_would_type_it(message, spelled):
    assert spell_options(message) == spelled
