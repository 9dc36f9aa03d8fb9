"""What stands beside the weights in a checkpoint: it is read as data, and never made, imported or run."""

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import functools
import io
import pathlib
import random
import re
import sys
import types
import uuid
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from fno_telemetry.errors import CheckpointError
from fno_telemetry.sources.arrays import read_samples
from fno_telemetry.sources.checkpoints import read_checkpoint
from fno_telemetry.sources.weight_loading import load_weights
from support.torch_pickles import save_pickle

WEIGHTS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -2.0])}


class Phase(enum.Enum):
    WARM_UP = "warm up"


class Level(enum.IntEnum):
    LOW = 1


class Slots:
    __slots__ = ("width",)

    def __init__(self):
        self.width = 4


@dataclass
class Settings:
    width: int = 4
    phase: Phase = Phase.WARM_UP


class Tree(dict):
    """A dict of the user's own, with an attribute."""


class Frozen:
    """A mapping of the user's own that is made of a dict."""

    def __init__(self, held):
        self.held = held

    def __reduce__(self):
        return Frozen, (self.held,)


class Traced:
    """Leaves a trace wherever code of it runs."""

    ran: list[str] = []  # noqa: RUF012

    def __new__(cls, *arguments):
        cls.ran.append("new")
        return super().__new__(cls)

    def __init__(self, *arguments):
        self.ran.append("init")

    def __getnewargs__(self):
        return (1,)

    def __setstate__(self, state):
        self.ran.append("setstate")

    def __getstate__(self):
        return {"a": 1}

    def __hash__(self):
        self.ran.append("hash")
        return 1

    def __eq__(self, other):
        self.ran.append("eq")
        return True


def optimizer():
    layer = nn.Linear(2, 2)
    made = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    made.step()
    return made


def holding_itself():
    held = Settings()
    held.self = held
    return held


OBJECTS = {
    "version": torch.__version__,
    "enum": Phase.WARM_UP,
    "int enum": Level.LOW,
    "keyed by an enum": {Phase.WARM_UP: 1, Level.LOW: 2},
    "set of enums": {Phase.WARM_UP},
    "deque": collections.deque([1, 2], maxlen=2),
    "counter": collections.Counter("abc"),
    "chain map": collections.ChainMap({"a": 1}),
    "numbers": [decimal.Decimal("0.1"), fractions.Fraction(1, 3), 2 + 3j, 2**200],
    "identifier": uuid.UUID(int=5),
    "ranges": [range(10**12), slice(1, None), Ellipsis, NotImplemented],
    "times": [
        datetime.timedelta(hours=1),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        datetime.date(2026, 1, 2),
    ],
    "pattern": re.compile("a+", re.I),
    "namespaces": [argparse.Namespace(a=1), types.SimpleNamespace(b=2)],
    "bytes": [b"", b"\xff" * 9, bytearray(b"abc"), memoryview(b"abc").tobytes()],
    "sets": [{1, 2}, frozenset({"a"}), {(1, 2): 3}],
    "text": ["π", "\udcff", "a\nb"],
    "stream": io.BytesIO(b"state"),
    "settings": Settings(),
    "settings that hold themselves": holding_itself(),
    "slots": Slots(),
    "own dict": Tree(a=1),
    "partial": functools.partial(nn.functional.leaky_relu, negative_slope=0.1),
    "functions and classes": [nn.functional.gelu, nn.SiLU, print, Settings, len],
    "optimizer": optimizer(),
    "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(), 10),
    "loss": nn.CrossEntropyLoss(weight=torch.ones(3)),
    "network": nn.Sequential(nn.Linear(2, 2), nn.GELU()),
    "types of tensors": [torch.float16, torch.Size([2]), torch.device("cpu"), torch.strided, torch.qint8],
    "arrays": [np.arange(6).reshape(2, 3), np.array(["a"]), np.zeros(2, [("a", "f4")]), np.array([{}])],
    "masked array": np.ma.masked_array([1, 2], [True, False]),
    "scalars": [np.float32(1), np.bool_(True), np.datetime64("2026-01-02"), np.str_("a")],
    "random states": [
        random.getstate(),
        np.random.get_state(),
        np.random.default_rng(3),
        torch.get_rng_state(),
    ],
    "random generators": [random.Random(3), np.random.RandomState(3)],
    "paths": [pathlib.PurePosixPath("a/b"), pathlib.PureWindowsPath("c:/d")],
    "sparse": torch.eye(3).to_sparse(),
    "without values": torch.ones(3, device="meta"),
    "exception": ValueError("a"),
}


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.filterwarnings("ignore")  # torch's own, on saving
def test_weights_and_arrays_are_read_whatever_is_beside_them(tmp_path, name):
    path = tmp_path / "saved.pt"
    field = torch.rand(2, 4, 4)
    content = {"extra": OBJECTS[name], "model": WEIGHTS, "diffraction": field, "last": [OBJECTS[name]]}
    for protocol, is_archive in ((2, True), (5, False)):
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_archive)
        layer = nn.Linear(3, 2)
        load_weights(layer, read_checkpoint(path))
        assert torch.equal(layer.weight, WEIGHTS["weight"])
        assert torch.equal(layer.bias, WEIGHTS["bias"])
        assert torch.equal(read_samples(path).values[:, 0], field)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_no_code_of_an_object_runs(tmp_path, protocol):
    path = tmp_path / "saved.pt"
    content = {"model": WEIGHTS, "extra": Traced(), "keys": {Traced(): 1}, "both": {Traced()}}
    torch.save(content, path, pickle_protocol=protocol)
    Traced.ran.clear()
    assert set(read_checkpoint(path).tensors) == set(WEIGHTS)
    assert Traced.ran == []


def test_no_module_is_imported_for_a_file(tmp_path):
    path = tmp_path / "saved.pt"
    torch.save({"model": WEIGHTS, "extra": [None]}, path)
    names = [b"chantilly_module\nThing", b"this\ns", b"antigravity\nfly", b"xml.dom.minidom\nDocument"]
    pickled = b"\x80\x02}(" + b"".join(
        b"X%c\x00\x00\x00%d" % (len(b"%d" % n), n) + b"c" + name + b"\n)R}b" for n, name in enumerate(names)
    )
    save_pickle(path, pickled + b"u.")
    before = set(sys.modules)
    assert "no tensors in it, only 0, 1, 2" in refusal(path)
    assert {name for name in set(sys.modules) - before if not name.startswith("encodings.")} == set()


def test_all_unknown_names_are_found_in_one_reading(tmp_path):
    path = tmp_path / "saved.pt"
    names = b"".join(b"X\x03\x00\x00\x00%03d" % n + b"cmine.part%03d\nThing\n)R" % n for n in range(600))
    save_pickle(path, b"\x80\x02}(" + names + b"u.")
    assert "no tensors in it" in refusal(path)
    networks = b"".join(
        b"X\x03\x00\x00\x00%03d" % n + b"cmine.part%03d\nThing\n)R}X\x0b\x00\x00\x00_parameters}sb" % n
        for n in range(600)
    )
    save_pickle(path, b"\x80\x02}(" + networks + b"u.")
    assert "'mine.part000.Thing', 'mine.part001.Thing', 'mine.part002.Thing' and 597 more" in refusal(path)


def test_a_whole_network_needs_trust_and_one_beside_its_weights_does_not(tmp_path):
    path = tmp_path / "saved.pt"
    torch.save({"model": nn.Linear(3, 2), "epoch": 3}, path)
    assert "would call 'torch.nn.modules.linear.Linear'" in refusal(path)
    torch.save({"model": Frozen(WEIGHTS)}, path)
    assert "would call 'tests.sources.test_stand_ins.Frozen'" in refusal(path)
    torch.save({"network": nn.Linear(3, 2), "state_dict": WEIGHTS}, path)
    layer = nn.Linear(3, 2)
    load_weights(layer, read_checkpoint(path))
    assert torch.equal(layer.weight, WEIGHTS["weight"])
    with pytest.raises(
        CheckpointError, match=r"would call 'torch\.nn\.modules\.linear\.Linear'.*`trust=True`"
    ):
        load_weights(nn.Sequential(layer), read_checkpoint(path))


@pytest.mark.parametrize("state", [b"K\x01", b"N", b"(K\x01K\x02t", b"]K\x01a", b"X\x01\x00\x00\x00a"])
def test_an_odd_state_of_a_dict_is_passed_over(tmp_path, state):
    path = tmp_path / "saved.pt"
    save_pickle(path, b"\x80\x02ccollections\nOrderedDict\n)R" + state + b"b.")
    assert "no tensors in it" in refusal(path)


def test_tensors_keep_their_view_conjugation_and_type(tmp_path):
    path = tmp_path / "saved.pt"
    base = torch.arange(24.0).reshape(4, 6)
    complex_one = torch.complex(base, base + 1)
    saved = {
        "transposed": base.t(),
        "strided": base[1:, ::2],
        "conj": complex_one.conj(),
        "neg": complex_one.clone().conj().imag,
        "half": base.half(),
        "brain": base.bfloat16(),
        "eight": base.to(torch.float8_e4m3fn),
        "unsigned": torch.arange(4).to(torch.uint16),
        "bool": base > 3,
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3.5),
        "expanded": torch.ones(1).expand(50),
        "parameter": nn.Parameter(base),
    }
    for is_archive in (True, False):
        torch.save(saved, path, _use_new_zipfile_serialization=is_archive)
        found = read_checkpoint(path).tensors
        for name, value in saved.items():
            assert found[name].dtype == value.dtype, name
            assert found[name].stride() == value.stride(), name
            assert torch.equal(found[name].to(torch.complex128), value.to(torch.complex128)), name


def test_quantized_tensors_are_rebuilt(tmp_path):
    path = tmp_path / "saved.pt"
    values = torch.arange(6.0).reshape(2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch gives it once in a process
        whole = torch.quantize_per_tensor(values, 0.5, 1, torch.qint8)
        axis = torch.quantize_per_channel(values, torch.ones(2), torch.zeros(2), 0, torch.qint8)
    torch.save({"whole": whole, "axis": axis}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what torch says of its own types is not for the user
        found = read_checkpoint(path).tensors
    assert torch.equal(found["whole"].dequantize(), values)
    assert torch.equal(found["axis"].dequantize(), values)
