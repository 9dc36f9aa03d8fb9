"""Inputs and checkpoints changed at random, and what may become of them: the right numbers, or one line.

`benchmarks/mutated_files.py` runs thousands; `tests/sources/test_mutated_files.py` a few.
"""

import io
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fno_telemetry import plugins
from fno_telemetry.architectures.fno import CascadedFNOGenerator
from fno_telemetry.errors import TelemetryError
from fno_telemetry.sources import build_network, read_checkpoint, read_samples
from support.torch_pickles import limited_time

FIELDS = np.random.default_rng(7).random((9, 8, 8), dtype=np.float32)
SETTINGS = {
    "epoch": 3,
    "hyper_parameters": {"N": 64, "names": ["a", ("b", 2.5)]},
    "best": {1: None, "x": {4}},
}


@dataclass(frozen=True)
class Seed:
    """A file that is changed, and how it is read."""

    data: bytes
    read: Callable[[Path], tuple[object, str]]  # what must not change, and what the checksums said


def make_seeds() -> dict[str, Seed]:
    """Return one small file of every kind."""

    def written(write: Callable[[Any], None]) -> bytes:
        stream = io.BytesIO()
        write(stream)
        return stream.getvalue()

    torch.manual_seed(0)
    network = CascadedFNOGenerator(C=1, hidden_channels=2, fno_blocks=1, cnn_blocks=1, modes=2)
    weights = {"state_dict": network.state_dict(), **SETTINGS}
    fields = {"diffraction": torch.from_numpy(FIELDS), **SETTINGS}
    return {
        "npy": Seed(written(lambda stream: np.save(stream, FIELDS)), _fields),
        "npz": Seed(written(lambda stream: np.savez(stream, diffraction=FIELDS, other=[1])), _fields),
        "deflated": Seed(written(lambda stream: np.savez_compressed(stream, diffraction=FIELDS)), _fields),
        "pt": Seed(written(lambda stream: torch.save(fields, stream)), _fields),
        "old pt": Seed(
            written(lambda stream: torch.save(fields, stream, _use_new_zipfile_serialization=False)), _fields
        ),
        "ckpt": Seed(written(lambda stream: torch.save(weights, stream)), _weights),
        "old ckpt": Seed(
            written(lambda stream: torch.save(weights, stream, _use_new_zipfile_serialization=False)),
            _weights,
        ),
    }


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Return the file with a few changes of bits, bytes, lengths or order."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at, length = chance.randrange(len(changed) or 1), chance.choice((1, 2, 4, 8, 40, 400))
        part = changed[at : at + length]
        kind = chance.randrange(7)
        if kind == 0 and part:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at : at + length] = chance.randbytes(len(part))
        elif kind == 2:
            changed[at : at + length] = chance.choice((b"\0", b"\xff", b"\x7f")) * len(part)
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = part * chance.choice((1, 3))
        elif kind == 5:
            del changed[at:]
        else:
            other = chance.randrange(len(changed) or 1)
            changed[other : other + len(part)] = part
    return bytes(changed)


def mutate_member(data: bytes, chance: random.Random) -> bytes | None:
    """Return an archive with a changed pickle or array header, its checksum right; None for other files."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return None
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, "w") as archive:
        for member in source.infolist():
            content = source.read(member)
            if member.filename.endswith(("data.pkl", "diffraction.npy")):
                head = content if member.filename.endswith("pkl") else content[:128]
                content = mutate(head, chance) + content[len(head) :]
            archive.writestr(member.filename, content, member.compress_type)
    return target.getvalue()


def find_failures(name: str, count: int, folder: Path, seed: int = 0) -> Iterator[str]:
    """Change a file of this kind `count` times; yield what must not be: tracebacks, waits, other numbers."""
    kind = make_seeds()[name]
    path, chance = folder / "changed", random.Random(f"{name} {seed}")
    path.write_bytes(kind.data)
    right, _ = kind.read(path)
    for number in range(count):
        inside = mutate_member(kind.data, chance) if number % 2 else None
        path.write_bytes(mutate(kind.data, chance) if inside is None else inside)
        try:
            with limited_time(10):
                found, said = kind.read(path)
        except TelemetryError as error:
            if "\n" in str(error) or str(path) not in str(error):
                yield f"{name} {number}: {error!r}"
        except BaseException as error:  # what must not happen
            if isinstance(error, KeyboardInterrupt):
                raise
            yield f"{name} {number}: {type(error).__name__}: {error}"
        else:
            if inside is None and said == "correct" and found != right:
                yield f"{name} {number}: read with other numbers"


def _fields(path: Path) -> tuple[object, str]:
    samples = read_samples(path, max_samples=4)
    return (samples.values.tolist(), samples.stored_shape), samples.checksums


def _weights(path: Path) -> tuple[object, str]:
    checkpoint = read_checkpoint(path)
    architectures = {"fno": plugins.load("architectures", "fno")}
    network = build_network(
        architectures,
        None,
        checkpoint=checkpoint,
        settings={},
        channels=1,
        size=8,
        seed=0,
        allow_missing=True,
    )
    state = {name: value.tolist() for name, value in network.model.state_dict().items()}
    return (repr(state), checkpoint.step, repr(dict(checkpoint.hyper_parameters))), checkpoint.checksums
