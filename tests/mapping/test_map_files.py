"""Map files: what is written reads back the same, and every wrong file says so in one line."""

import pytest
import torch
from torch import nn

import fno_telemetry as ft

HEAD = 'schema = "fno-telemetry-map/1"\n'
ENTRY = HEAD + "[[modules]]\n"


@pytest.fixture
def mapped(small_network, images):
    return ft.map_model(small_network("stable_hybrid"), images)


def test_a_written_map_states_every_role_and_axis(mapped, tmp_path):
    path = tmp_path / "new folder" / "map ü.toml"
    ft.write_map(mapped, path)
    assert ft.read_map(path) == {
        module.name: ft.GivenRole(module.role, module.spatial_axes, module.channel_axis)
        for module in mapped.modules
    }


def test_reading_a_map_back_changes_nothing(mapped, tmp_path, small_network, images):
    ft.write_map(mapped, tmp_path / "map.toml")
    again = ft.map_model(small_network("stable_hybrid"), images, given=ft.read_map(tmp_path / "map.toml"))
    for one, other in zip(again.modules, mapped.modules, strict=True):
        assert (one.name, one.role, one.spatial_axes, one.channel_axis, one.modes) == (
            *(other.name, other.role, other.spatial_axes),
            *(other.channel_axis, other.modes),
        )
        assert one.reason == "given by hand"
    assert again.blocks == mapped.blocks


def test_names_and_axes_of_every_kind_survive(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module('quote"back\\slash', nn.Linear(3, 3))
            self.add_module("ümläut\n", nn.Linear(3, 3))

        def forward(self, x):
            for child in self.children():
                x = child(x)
            return x.relu()

    mapped = ft.map_model(Odd(), torch.rand(2, 3))
    ft.write_map(mapped, tmp_path / "map.toml")
    given = ft.read_map(tmp_path / "map.toml")
    assert list(given) == ['quote"back\\slash', "ümläut\n", "#relu"]
    assert given["#relu"] == ft.GivenRole("activation", (), 1)
    assert ft.map_model(Odd(), torch.rand(2, 3), given=given)["#relu"].reason == "given by hand"


def test_what_is_left_out_is_seen_from_the_model(tmp_path, small_network, images):
    path = tmp_path / "map.toml"
    path.write_text(
        ENTRY + 'name = "lifter"\nrole = "local"\n[[modules]]\nname = "intermediate"\nspatial_axes = [3]\n'
    )
    mapped = ft.map_model(small_network(), images, given=ft.read_map(path))
    assert (mapped["lifter"].role, mapped["lifter"].spatial_axes) == ("local", (2, 3))
    assert (mapped["intermediate"].role, mapped["intermediate"].spatial_axes) == ("other", (3,))
    path.write_text(HEAD)
    assert ft.read_map(path) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("schema = ", "not TOML"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("", "the schema is None, expected 'fno-telemetry-map/1'"),
        ('schema = "fno-telemetry-map/2"', "the schema is 'fno-telemetry-map/2'"),
        ("schema = 1", "the schema is 1"),
        (HEAD + "module = 3", "unknown key 'module'"),
        (HEAD + "modules = 3", "modules must be tables"),
        (HEAD + "[modules]\nname = 'a'", "modules must be tables"),
        (HEAD + "modules = [1, 2]", "modules must be tables"),
        (ENTRY + 'role = "local"', "has no name"),
        (ENTRY + "name = 3", "has no name"),
        (ENTRY + 'name = "a"\nrolle = "local"', "'a' has an unknown key 'rolle'"),
        (
            ENTRY + 'name = "a"\nrole = "lokal"',
            "'a' has the unknown role 'lokal'. Did you mean local or block\\? Known: lifting",
        ),
        (ENTRY + 'name = "a"\nrole = ["local"]', "'a' has the unknown role"),
        (ENTRY + 'name = "a"\nspatial_axes = 2', "spatial_axes of 'a' must be a list"),
        (ENTRY + 'name = "a"\nspatial_axes = [-1]', "spatial_axes of 'a' must be a list"),
        (ENTRY + 'name = "a"\nspatial_axes = [1.0]', "spatial_axes of 'a' must be a list"),
        (ENTRY + 'name = "a"\nspatial_axes = [2, 2]', "'a'.*only once"),
        (ENTRY + 'name = "a"\nspatial_axes = [true]', "spatial_axes of 'a' must be a list"),
        (ENTRY + 'name = "a"\nchannel_axis = "1"', "channel_axis of 'a' must be an axis"),
        (ENTRY + 'name = "a"\nchannel_axis = false', "channel_axis of 'a' must be an axis"),
        (ENTRY + 'name = "a"\nchannel_axis = 2\nspatial_axes = [2]', "'a'.*spatial or as channel axis"),
        (ENTRY + 'name = "a"\n[[modules]]\nname = "a"', "'a' is listed twice"),
    ],
)
def test_every_wrong_file_is_told_in_one_line_with_its_name(content, message, tmp_path):
    path = tmp_path / "map.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ft.MapError, match=message) as caught:
        ft.read_map(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ft.MapError, match="no such file; `fno-telemetry map --output` writes one"):
        ft.read_map(tmp_path / "map.toml")
    with pytest.raises(ft.MapError, match="cannot be read"):
        ft.read_map(tmp_path)


def test_a_map_is_written_whole_or_not_at_all(mapped, tmp_path):
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(ft.TelemetryError, match="taken: cannot be written"):
        ft.write_map(mapped, target)
    assert list(tmp_path.iterdir()) == [target]
