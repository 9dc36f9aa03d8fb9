"""Canonical paths: wrappers vanish, leading sole children too, and no two paths ever become one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

import fno_telemetry as ft
from fno_telemetry.tracing.canonical_paths import SOLE_CHILDREN, WRAPPERS, canonical_names, without_wrappers

WRAPPER_NAMES = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]
WRAPPER_NAMES += ["_forward_module"]  # of Lightning's Fabric


def test_the_names_of_wrappers_are_these():
    assert (set(WRAPPER_NAMES), {"model", "generator", "net"}) == (WRAPPERS, SOLE_CHILDREN)


@pytest.mark.parametrize("wrapper", WRAPPER_NAMES)
def test_wrappers_are_dropped_wherever_they_stand(wrapper):
    paths = {
        "": "",
        "a": "a",
        f"{wrapper}.a.b": "a.b",
        f"a.{wrapper}.c": "a.c",
        f"a.c.{wrapper}.{wrapper}.d": "a.c.d",
    }
    assert canonical_names(paths) == paths
    assert without_wrappers(f"{wrapper}.a.{wrapper}") == "a"
    # Only whole names count.
    assert without_wrappers(f"my_{wrapper}.a{wrapper}") == f"my_{wrapper}.a{wrapper}"


@pytest.mark.parametrize("lead", ["model", "generator", "net"])
def test_a_leading_sole_child_is_dropped(lead):
    assert canonical_names(["", lead, f"{lead}.a", f"{lead}.a.b"]) == {
        "": "",
        lead: "",
        f"{lead}.a": "a",
        f"{lead}.a.b": "a.b",
    }
    # Not when something else stands beside it, and not further inside.
    for kept in (["", lead, f"{lead}.a", "other"], ["a", f"a.{lead}", f"a.{lead}.b"]):
        assert canonical_names(kept) == {path: path for path in kept}


def test_leading_names_are_dropped_in_any_nesting():
    assert canonical_names(["model.module.net.generator.a", "model._orig_mod.net.generator.b.model.c"]) == {
        "model.module.net.generator.a": "a",
        "model._orig_mod.net.generator.b.model.c": "b.model.c",
    }


def test_a_sole_child_that_is_the_network_itself_keeps_its_name():
    assert canonical_names(["", "model"]) == {"": "", "model": "model"}


def test_colliding_paths_keep_their_full_path():
    assert canonical_names(["a.module.b", "a.b", "a.c"]) == {
        "a.module.b": "a.module.b",
        "a.b": "a.b",
        "a.c": "a.c",
    }
    # The full path that one keeps may be the short form of a third, which then keeps its own.
    paths = ["model.a.b", "model.a.module.b", "model.model.a.b", "model.c"]
    assert canonical_names(paths) == {
        "model.a.b": "model.a.b",
        "model.a.module.b": "model.a.module.b",
        "model.model.a.b": "model.model.a.b",
        "model.c": "c",
    }


parts = st.sampled_from(["a", "b", "0", "module", "_orig_mod", "model", "net"])


@given(st.lists(st.lists(parts, max_size=5).map(".".join), max_size=12))
def test_no_two_paths_share_a_name_and_the_order_does_not_matter(paths):
    names = canonical_names(paths)
    assert names.keys() == set(paths)
    shown = [name for name in names.values() if name]
    assert len(shown) == len(set(shown))
    assert canonical_names(reversed(paths)) == names
    for path, name in names.items():
        assert name == path or not WRAPPERS & set(name.split("."))


@pytest.mark.parametrize("wrapped", ["parallel", "compiled", "inside", "checkpointed", "averaged", "model"])
def test_a_wrapped_model_has_the_names_of_the_bare_one(wrapped, small_network, images):
    network = small_network("fno_vanilla")
    expected = ft.capture(network, images)
    if wrapped == "parallel":
        network = nn.DataParallel(network)
    elif wrapped == "compiled":
        pytest.importorskip("torch._dynamo")
        network = torch.compile(network, backend="eager")
    elif wrapped == "inside":
        network.blocks[0] = nn.DataParallel(network.blocks[0])
    elif wrapped == "checkpointed":
        network.blocks[0] = checkpoint_wrapper(network.blocks[0])
    elif wrapped == "averaged":
        network = AveragedModel(network)
    elif wrapped == "model":
        outer = nn.Module()
        outer.model = network
        outer.forward = lambda x: outer.model(x)
        network = outer
    record = ft.capture(network, images)
    assert [m.name for m in record.modules] == [m.name for m in expected.modules]
    assert record.blocks == expected.blocks
    assert [m.role for m in record.modules] == [m.role for m in expected.modules]
    assert {m.parent for m in record.modules} == {m.parent for m in expected.modules}
    assert record.output == expected.output
    assert record.not_fired == ()
    assert record.summary["architecture"] == ("Module" if wrapped == "model" else "FnoVanillaGeneratorModule")


def test_a_child_called_module_that_is_no_wrapper_keeps_its_name():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(4, 4)

        def forward(self, x):
            return x + self.module(x)

    record = ft.capture(nn.Sequential(Residual(), nn.Linear(4, 4)), torch.rand(2, 4), layers=["*"])
    assert [m.name for m in record.modules] == ["0.module", "0", "1"]
