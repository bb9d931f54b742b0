"""Damaged and hostile folders: each is an error that names what is wrong, and none hangs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file

from moirai_moe_forecaster import MoiraiMoEForecaster, MoiraiMoEPipeline
from moirai_moe_forecaster.checkpoint import load_checkpoint, save_checkpoint, store
from moirai_moe_forecaster.checkpoint.adapters import (
    ADAPTERS_FILE,
    DOWN,
    UP,
    Adapters,
    apply_adapters,
    fingerprint,
    load_adapted,
    load_adapters,
    save_adapters,
)
from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.errors import CheckpointError
from moirai_moe_forecaster.model.network import MoiraiMoE
from parity.official_checkpoint import write_official_checkpoint

CONFIG = ModelConfig(
    d_model=16, d_ff=8, num_layers=2, num_heads=2, num_experts=4, experts_per_token=2
)
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_checkpoint(MoiraiMoE(CONFIG), tmp_path / "model")
    return tmp_path / "model"


def adapters_of(network: MoiraiMoE, base: str | None = None) -> Adapters:
    out = network.blocks[0].attention.out.weight
    tensors = {
        f"blocks.0.attention.out.weight{UP}": 0.1 * torch.randn(len(out), 2),
        f"blocks.0.attention.out.weight{DOWN}": 0.1 * torch.randn(2, out.shape[1]),
        "projection.bias": torch.randn(network.projection.bias.shape),
    }
    return Adapters(tensors, base, None, fingerprint(network), {"dtype": "float32"})


@pytest.fixture
def adapted(folder: Path) -> Path:
    network = load_checkpoint(folder).network
    save_adapters(adapters_of(network, str(folder)), folder.parent / "adapted")
    return folder.parent / "adapted"


def header_and_data(file: Path) -> tuple[dict[str, Any], bytes]:
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write(file: Path, header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def flipped(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(bytes(content))


class TestWeights:
    @pytest.mark.parametrize("of", ["checkpoint", "bfloat16", "official", "adapters"])
    def test_no_bit_of_a_tensor_flips_unnoticed(
        self, of: str, folder: Path, tmp_path: Path
    ) -> None:
        network = load_checkpoint(folder).network
        file, load = folder / WEIGHTS, load_checkpoint
        if of == "bfloat16":
            save_checkpoint(network, folder, dtype=torch.bfloat16)
        elif of == "official":
            official = ModelConfig.official(d_model=64, d_ff=8, num_layers=1, num_heads=1)
            save_checkpoint(MoiraiMoE(official), folder, layout="official", licence="MIT")
        elif of == "adapters":
            save_adapters(adapters_of(network), tmp_path)
            file, load = tmp_path / ADAPTERS_FILE, load_adapters
        load(file.parent)
        whole = file.read_bytes()
        _, data = header_and_data(file)
        random = np.random.default_rng(0)
        for bit in 8 * (len(whole) - len(data)) + random.integers(0, 8 * len(data), 24):
            flipped(file, int(bit))
            with pytest.raises(CheckpointError, match=r"SHA-256|not finite"):
                load(file.parent)
            file.write_bytes(whole)
        load(file.parent)

    def test_a_flipped_bit_of_the_bundled_weights_is_noticed(self, tmp_path: Path) -> None:
        bundled = Path(load_checkpoint().info.source)
        shutil.copytree(bundled, tmp_path / "copy")
        size = (bundled / WEIGHTS).stat().st_size
        flipped(tmp_path / "copy" / WEIGHTS, 8 * size - 1000)
        with pytest.raises(CheckpointError, match="SHA-256"):
            load_checkpoint(tmp_path / "copy")

    def test_flips_in_a_header_change_no_weight_unnoticed(self, folder: Path) -> None:
        before = load_checkpoint(folder).network.state_dict()
        whole = (folder / WEIGHTS).read_bytes()
        _, data = header_and_data(folder / WEIGHTS)
        random = np.random.default_rng(1)
        for bit in random.integers(0, 8 * (len(whole) - len(data)), 80):
            flipped(folder / WEIGHTS, int(bit))
            try:
                after = load_checkpoint(folder).network.state_dict()
            except CheckpointError:
                pass
            else:  # of a text that says nothing of the tensors
                assert all(torch.equal(before[name], after[name]) for name in before)
            (folder / WEIGHTS).write_bytes(whole)

    @pytest.mark.filterwarnings("ignore:.*CC-BY-NC")
    @pytest.mark.parametrize("layout", ["native", "official"])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_weights_that_are_not_finite_are_named(
        self, layout: str, value: float, folder: Path
    ) -> None:
        if layout == "official":
            write_official_checkpoint(folder, seed=0, d_model=64)
        tensors = load_file(folder / WEIGHTS)
        for name in list(tensors)[:: len(tensors) // 6]:
            changed = {**tensors, name: tensors[name].clone()}
            changed[name].view(-1)[-1] = value
            save_file(changed, folder / WEIGHTS)  # without a digest, as others write it
            with pytest.raises(CheckpointError, match="not finite"):
                load_checkpoint(folder)
        save_file(tensors, folder / WEIGHTS)
        load_checkpoint(folder)

    def test_a_diverged_network_is_saved_but_not_loaded(self, folder: Path) -> None:
        network = load_checkpoint(folder).network
        with torch.no_grad():
            network.projection.bias[3] = torch.nan
        save_checkpoint(network, folder)
        with pytest.raises(CheckpointError, match=r"not finite, in projection\.bias"):
            MoiraiMoEPipeline.from_pretrained(folder)

    def test_numbers_beyond_float32_are_not_finite(self, folder: Path) -> None:
        tensors = {name: x.double() for name, x in load_file(folder / WEIGHTS).items()}
        tensors["projection.bias"][0] = 1e300
        save_file(tensors, folder / WEIGHTS)
        with pytest.raises(CheckpointError, match="not finite"):
            load_checkpoint(folder)


VALUES = [2**62, 2**40, 10**6, 10**30, -1, 0, 1.5, True, None, "x", [], {}, [[]], float("nan")]


class TestConfiguration:
    @pytest.mark.parametrize("field", ModelConfig.preset("tiny").to_dict())
    def test_no_value_of_a_field_hangs_or_escapes(self, field: str, folder: Path) -> None:
        settings = json.loads((folder / "config.json").read_text())
        for value in VALUES:
            changed = {**settings, "model": {**settings["model"], field: value}}
            (folder / "config.json").write_text(json.dumps(changed))
            try:
                network = load_checkpoint(folder).network
            except CheckpointError:
                continue
            assert network.config.to_dict()[field] == value

    @pytest.mark.filterwarnings("ignore:.*CC-BY-NC")
    def test_nor_one_of_an_official_configuration(self, folder: Path) -> None:
        write_official_checkpoint(folder, seed=0, d_model=64)
        settings = json.loads((folder / "config.json").read_text())
        for field in settings:
            for value in VALUES:
                (folder / "config.json").write_text(json.dumps({**settings, field: value}))
                try:
                    load_checkpoint(folder)
                except CheckpointError:
                    continue

    @pytest.mark.parametrize(
        "text",
        [
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b'{"format": "moirai-moe-forecaster", "format_version": ' + b"9" * 5000 + b"}",
            b"\xff\xfe\x00",
            b'"\\ud800"',
            b"",
        ],
        ids=["lists", "objects", "number", "bytes", "surrogate", "empty"],
    )
    def test_text_that_is_no_configuration(self, text: bytes, folder: Path) -> None:
        (folder / "config.json").write_bytes(text)
        with pytest.raises(CheckpointError):
            load_checkpoint(folder)


class TestFiles:
    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
    @pytest.mark.parametrize("name", ["config.json", WEIGHTS, ADAPTERS_FILE])
    @pytest.mark.parametrize("kind", ["fifo", "device", "directory", "sparse", "loop"])
    def test_what_is_no_regular_file_is_not_opened(
        self, name: str, kind: str, folder: Path, adapted: Path
    ) -> None:
        file = (adapted if name == ADAPTERS_FILE else folder) / name
        file.unlink()
        if kind == "fifo":
            os.mkfifo(file)
        elif kind == "device":
            file.symlink_to("/dev/zero")
        elif kind == "directory":
            file.mkdir()
        elif kind == "loop":
            file.symlink_to(file)
        else:
            with file.open("wb") as opened:
                opened.truncate(2**37)  # holes, which take no room
        with pytest.raises(CheckpointError):
            (load_adapters if name == ADAPTERS_FILE else load_checkpoint)(file.parent)

    @pytest.mark.parametrize("length", [0, 1, 2**23, 2**40, 2**63, 2**64 - 1])
    def test_a_header_of_any_length(self, length: int, folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + content[8:])
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            load_checkpoint(folder)

    def test_a_file_cut_anywhere(self, folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        for size in np.linspace(0, len(content) - 1, 12).astype(int):
            (folder / WEIGHTS).write_bytes(content[:size])
            with pytest.raises(CheckpointError):
                load_checkpoint(folder)


def rewritten(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what an adapter file says beside its tensors."""
    header, data = header_and_data(file)
    facts = json.loads(header["__metadata__"]["adapters"])
    change(facts)
    header["__metadata__"]["adapters"] = json.dumps(facts)
    write(file, header, data)


class TestAdapters:
    @pytest.mark.parametrize(
        "field", ["format", "format_version", "base", "revision", "fingerprint", "settings"]
    )
    def test_a_wrong_or_missing_field_is_named(self, field: str, adapted: Path) -> None:
        whole = (adapted / ADAPTERS_FILE).read_bytes()
        rewritten(adapted / ADAPTERS_FILE, lambda facts: facts.pop(field))
        named = "adapters of this package" if field == "format" else field
        with pytest.raises(CheckpointError, match=named):
            load_adapters(adapted)
        for value in [3, -1, 1.5, True, [], ["a"], None, "", {"a": 1}, 2**70]:
            if (field, value) in (("revision", None), ("settings", {"a": 1})):
                continue  # which they may be
            (adapted / ADAPTERS_FILE).write_bytes(whole)
            rewritten(adapted / ADAPTERS_FILE, lambda facts, v=value: facts.update({field: v}))
            with pytest.raises(CheckpointError):
                MoiraiMoEPipeline.from_pretrained(adapted)

    @pytest.mark.parametrize("text", ["[" * 100_000, "{", "null", "3", '"a"', "[]", "{}"])
    def test_facts_that_are_none(self, text: str, adapted: Path) -> None:
        header, data = header_and_data(adapted / ADAPTERS_FILE)
        header["__metadata__"]["adapters"] = text
        write(adapted / ADAPTERS_FILE, header, data)
        with pytest.raises(CheckpointError, match="holds no adapters"):
            load_adapters(adapted)

    @pytest.mark.parametrize("length", [1, 2, 5])
    def test_bases_in_a_circle(self, length: int, adapted: Path) -> None:
        folders = [adapted.parent / str(number) for number in range(length)]
        for number, here in enumerate(folders):
            shutil.copytree(adapted, here)
            following = str(folders[(number + 1) % length])
            rewritten(here / ADAPTERS_FILE, lambda facts, b=following: facts.update(base=b))
        with pytest.raises(CheckpointError, match="themselves as 'base'"):
            load_adapted(folders[0])

    def test_adapters_on_adapters_apply_in_order(self, folder: Path, adapted: Path) -> None:
        second = adapters_of(load_adapted(adapted).network, str(adapted))
        save_adapters(second, adapted.parent / "second")
        network = load_adapted(adapted.parent / "second").network
        bias = second.tensors["projection.bias"]
        assert torch.equal(network.projection.bias, bias)

    @pytest.mark.parametrize(
        "change",
        [
            lambda tensors, up, down: {**tensors, up: tensors[up].long()},
            lambda tensors, up, down: {**tensors, down: tensors[down].bool()},
            lambda tensors, up, down: {up: tensors[up]},
            lambda tensors, up, down: {down: tensors[down]},
            lambda tensors, up, down: {**tensors, up: tensors[up][:, :1]},
            lambda tensors, up, down: {**tensors, up: tensors[up][0]},
            lambda tensors, up, down: {**tensors, up: tensors[up][None], down: tensors[down]},
            lambda tensors, up, down: {up: torch.ones(()), down: torch.ones(())},
            lambda tensors, up, down: {up: torch.ones(10**6, 1), down: torch.ones(1, 10**6)},
            lambda tensors, up, down: {"projection.bias": torch.ones(3)},
            lambda tensors, up, down: {"projection.bias": torch.ones(())},
            lambda tensors, up, down: {"nothing": torch.ones(3)},
            lambda tensors, up, down: {**tensors, up: torch.full_like(tensors[up], torch.nan)},
            lambda tensors, up, down: {**tensors, up: torch.full_like(tensors[up], -torch.inf)},
        ],
    )
    def test_tensors_that_fit_nothing(self, change: Any, folder: Path, adapted: Path) -> None:
        tensors = load_file(adapted / ADAPTERS_FILE)
        up, down = (f"blocks.0.attention.out.weight{half}" for half in (UP, DOWN))
        header, _ = header_and_data(adapted / ADAPTERS_FILE)
        facts = {"adapters": header["__metadata__"]["adapters"]}
        changed = {name: x.contiguous() for name, x in change(tensors, up, down).items()}
        (adapted / ADAPTERS_FILE).write_bytes(save(changed, metadata=facts))
        with pytest.raises(CheckpointError):
            MoiraiMoEPipeline.from_pretrained(adapted)
        before = load_checkpoint(folder).network
        with pytest.raises(CheckpointError):
            apply_adapters(before, load_adapters(adapted))
        assert fingerprint(before) == fingerprint(load_checkpoint(folder).network)


NO_PATHS = [3, 3.5, b"model", ["a"], {}, "", "a\0b", "a/b\0c", "x" * 5000, "a/" + "b" * 5000]


class TestArguments:
    @pytest.mark.parametrize("path", NO_PATHS, ids=lambda path: repr(path)[:12])
    def test_what_is_no_path_is_an_error_everywhere(self, path: Any, folder: Path) -> None:
        pipeline = MoiraiMoEPipeline.from_pretrained(folder)
        adapters = adapters_of(pipeline.network)
        calls: list[Callable[[Any], object]] = [
            MoiraiMoEPipeline.from_pretrained,
            pipeline.save_pretrained,
            pipeline.with_adapters,
            load_checkpoint,
            lambda path: save_adapters(adapters, path),
        ]
        for call in calls:
            with pytest.raises(CheckpointError, match="expected"):
                call(path)

    @pytest.mark.parametrize("path", ["a\0b", "a/b\0c", "x" * 5000, "a/" + "b" * 5000])
    def test_nor_in_an_sktime_forecaster(self, path: str) -> None:
        with pytest.raises(CheckpointError, match="expected"):
            MoiraiMoEForecaster(model_path=path).fit(pd.Series(np.arange(40.0)))

    def test_a_hub_out_of_reach_is_asked_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        utils = pytest.importorskip("huggingface_hub.utils")
        asked = []

        class Session:
            def head(self, url: str, timeout: float) -> None:
                asked.append((url, timeout))
                raise OSError("unreachable")

        monkeypatch.setattr(utils, "get_session", Session)
        with pytest.raises(CheckpointError, match=r"was looked for in .*out of reach"):
            MoiraiMoEPipeline.from_pretrained("nobody-at-all/nothing")
        assert [seconds for _, seconds in asked] == [5.0]


class TestSaving:
    @pytest.mark.parametrize(
        "error", [SafetensorError("I/O error: No space left on device"), OSError(28, "No space")]
    )
    def test_a_full_disk_leaves_what_was_there(
        self, error: Exception, folder: Path, adapted: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network = load_checkpoint(folder).network
        before = {file: file.read_bytes() for file in folder.parent.rglob("*") if file.is_file()}

        def full(*arguments: object, **options: object) -> None:
            raise error

        monkeypatch.setattr(store, "save_file", full)
        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(CheckpointError, match="No space"):
            MoiraiMoEPipeline(network).save_pretrained(folder)
        with pytest.raises(CheckpointError, match="No space"):
            save_adapters(adapters_of(network), adapted)
        after = {file: file.read_bytes() for file in folder.parent.rglob("*") if file.is_file()}
        assert after == before

    def test_a_folder_that_cannot_be_made(self, folder: Path) -> None:
        network = load_checkpoint(folder).network
        (folder.parent / "file").write_text("")
        for place in (folder.parent / "file" / "below", Path("/proc/nothing/there")):
            with pytest.raises(CheckpointError, match=r"cannot save to|is a file"):
                MoiraiMoEPipeline(network).save_pretrained(place)

    def test_what_killed_saves_left_goes(self, folder: Path) -> None:
        network = load_checkpoint(folder).network
        died = subprocess.Popen([sys.executable, "-c", "pass"])
        died.wait()
        alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        gone = [
            ".saving-k3x_9abz",
            f".saving-{died.pid}-01234567-abc",
            f".saving-{os.getpid()}-0000abcd-x",
        ]
        kept = [f".saving-{alive.pid}-01234567-abc", "mine"]
        for name in gone + kept:
            (folder / name).mkdir()
            (folder / name / WEIGHTS).write_bytes(b"half of it")
        MoiraiMoEPipeline(network).save_pretrained(folder)
        alive.communicate(b"\n")
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            [*kept, "config.json", WEIGHTS]
        )

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals")
    def test_after_a_kill_the_next_save_cleans_up(self, folder: Path) -> None:
        code = """
            import os, signal, sys
            from moirai_moe_forecaster.checkpoint import load_checkpoint, save_checkpoint, store
            network = load_checkpoint(sys.argv[1]).network
            store.save_file = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
            save_checkpoint(network, sys.argv[1])
        """
        command = [sys.executable, "-c", textwrap.dedent(code), str(folder)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert list(folder.glob(".saving-*"))
        save_checkpoint(load_checkpoint(folder).network, folder)
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", WEIGHTS]
