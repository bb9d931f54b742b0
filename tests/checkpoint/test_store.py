"""Checkpoints: saved and loaded in both layouts, from every place, and refused if damaged."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from hub_server import Files, HubServer, Request, commit_of
from moirai_moe_forecaster.checkpoint import load_checkpoint, places, save_checkpoint, store
from moirai_moe_forecaster.config import ModelConfig
from moirai_moe_forecaster.errors import CheckpointError, ConfigError, MissingExtraError
from moirai_moe_forecaster.model.network import MoiraiMoE
from moirai_moe_forecaster.model.tokens import TokenBatch
from parity.official_checkpoint import official_config, write_official_checkpoint

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
NATIVE = ModelConfig(
    d_model=16, d_ff=8, num_layers=2, num_heads=2, num_experts=4, experts_per_token=2
)
OFFICIAL = ModelConfig.official(d_model=128, d_ff=8, num_layers=2, num_heads=2)


@pytest.fixture(autouse=True)
def _nothing_warned_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_warned", set())


class Operations(TorchDispatchMode):
    """Names of the operations of torch that were done on memory."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not (isinstance(result, torch.Tensor) and result.is_meta):
            self.names.append(str(func))
        return result


def random_network(config: ModelConfig, seed: int = 0) -> MoiraiMoE:
    """Every number is random, so that no two tensors could be exchanged unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    network = MoiraiMoE(config)
    for tensor in network.state_dict().values():
        tensor.normal_(generator=generator)
    return network


def same(one: MoiraiMoE, other: MoiraiMoE) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    settings = json.loads(file.read_text())
    change(settings)
    file.write_text(json.dumps(settings))


def edit_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


@pytest.fixture
def native(tmp_path: Path) -> Path:
    save_checkpoint(random_network(NATIVE), tmp_path / "native", licence="MIT")
    return tmp_path / "native"


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """As downloaded: without a licence of ours."""
    write_official_checkpoint(tmp_path / "official", seed=1, d_model=64, num_layers=1, d_ff=8)
    return tmp_path / "official"


class TestNative:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"router": "centroid", "centroid_choice": "farthest"},
            {"observed_mask_input": False, "shift_known_future": False, "output_patches": 3},
            {"num_experts": 1, "experts_per_token": 1, "mixture": ("log_normal", "student_t")},
        ],
    )
    def test_a_saved_network_loads_as_it_was(self, changes: dict[str, Any], tmp_path: Path) -> None:
        saved = random_network(ModelConfig(**{**NATIVE.to_dict(), **changes}))
        save_checkpoint(saved, tmp_path / "new" / "folder", licence="MIT")
        network, info = load_checkpoint(tmp_path / "new" / "folder")
        assert network.config == saved.config
        assert same(network, saved)
        assert not network.training
        assert all(parameter.requires_grad for parameter in network.parameters())
        assert info.layout == "native"
        assert info.licence == "MIT"
        assert info.name == "folder"
        assert info.source == str(tmp_path / "new" / "folder")
        assert info.revision is None

    def test_the_configuration_file_is_plain(self, native: Path) -> None:
        assert json.loads((native / "config.json").read_text()) == {
            "format": "moirai-moe-forecaster",
            "format_version": 1,
            "licence": "MIT",
            "model": NATIVE.to_dict(),
        }

    def test_a_string_is_a_path_too(self, native: Path) -> None:
        assert same(load_checkpoint(str(native)).network, load_checkpoint(native).network)

    def test_home_is_expanded(self, native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(native.parent))
        assert load_checkpoint("~/native").network.config == NATIVE

    def test_a_network_in_half_precision_is_stored_in_full(self, tmp_path: Path) -> None:
        save_checkpoint(random_network(NATIVE).bfloat16(), tmp_path)
        assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {
            torch.float32
        }

    def test_bfloat16_halves_the_file_and_loads_as_float32(
        self, native: Path, tmp_path: Path
    ) -> None:
        network = load_checkpoint(native).network
        save_checkpoint(network, tmp_path / "half", dtype=torch.bfloat16)
        full, half = (
            (folder / "model.safetensors").stat().st_size for folder in (native, tmp_path / "half")
        )
        assert half < 0.7 * full
        loaded = load_checkpoint(tmp_path / "half").network.state_dict()
        for name, tensor in network.state_dict().items():
            assert loaded[name].dtype == torch.float32
            assert torch.equal(loaded[name], tensor.bfloat16().float())


class TestLoading:
    @pytest.mark.parametrize("layout", ["native", "official"])
    def test_nothing_global_matters_or_changes(self, layout: str, tmp_path: Path) -> None:
        config = NATIVE if layout == "native" else OFFICIAL
        save_checkpoint(random_network(config), tmp_path, layout=layout, licence="MIT")
        before = torch.get_rng_state()
        torch.set_default_dtype(torch.float64)
        try:
            with torch.device("meta"):
                network = load_checkpoint(tmp_path).network
        finally:
            torch.set_default_dtype(torch.float32)
        assert torch.equal(torch.get_rng_state(), before)
        for tensor in (*network.parameters(), *network.buffers()):
            assert tensor.device.type == "cpu"
            assert tensor.dtype == torch.float32

    def test_the_file_may_go_after_loading(self, native: Path) -> None:
        network = load_checkpoint(native).network
        expected = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        file = native / "model.safetensors"
        file.write_bytes(b"\xff" * file.stat().st_size)
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, expected[name])

    def test_no_weight_is_drawn_before_it_is_read(self, native: Path) -> None:
        with Operations() as operations:
            load_checkpoint(native)
        assert not [name for name in operations.names if re.search("normal|uniform|rand", name)]
        with Operations() as operations:
            MoiraiMoE(load_checkpoint(native).network.config)
        assert [name for name in operations.names if re.search("normal|uniform|rand", name)]

    def test_a_first_load_imports_nothing_more(self, native: Path) -> None:
        answer = in_new_process(
            """
            from moirai_moe_forecaster import checkpoint
            before = set(sys.modules)
            checkpoint.load_checkpoint(sys.argv[1])
            more = {name.partition(".")[0] for name in set(sys.modules) - before}
            print(json.dumps([sorted(more), "huggingface_hub" in before]))
            """,
            str(native),
        )
        more, hub_was_imported = answer
        assert not {"sympy", "huggingface_hub", "sktime", "pandas"} & set(more)
        assert not hub_was_imported


@pytest.mark.filterwarnings("ignore:.*CC-BY-NC")
class TestOfficial:
    @pytest.mark.parametrize("case", ["two_heads_tri_both_covariates", "uni_missing_inside"])
    def test_loads_to_the_numbers_of_the_reference(self, case: str, tmp_path: Path) -> None:
        with np.load(GOLDEN / f"{case}.npz") as stored:
            golden = dict(stored)
        write_official_checkpoint(
            tmp_path, seed=int(golden["seed"]), d_model=int(golden["d_model"])
        )
        network = load_checkpoint(tmp_path).network
        with torch.no_grad():
            output = network.encode(golden_tokens(golden))
            mixture = network.head(output.hidden)
        experts = torch.stack([routing.experts for routing in output.routings])
        np.testing.assert_array_equal(experts, golden["token_experts"])

        variate, future = golden["token_variate_id"], golden["token_prediction_mask"] > 0
        targets = golden["weights"].shape[0]
        read = [int(np.flatnonzero((variate == v) & ~future)[-1]) for v in range(targets)]
        weights = mixture.log_weights[:, 0, 0, read, 0].exp().movedim(0, -1)
        np.testing.assert_allclose(weights, golden["weights"], atol=1e-5)
        names = ("student_t", "normal", "negative_binomial", "log_normal")
        for name, component in zip(names, mixture.components, strict=True):
            for field, value in component._asdict().items():
                np.testing.assert_allclose(
                    value[0, 0, read, 0], golden[f"{name}_{field}"], rtol=1e-4, atol=1e-5
                )

    def test_a_saved_network_loads_as_it_was(self, tmp_path: Path) -> None:
        saved = random_network(OFFICIAL)
        save_checkpoint(saved, tmp_path, layout="official")
        network, info = load_checkpoint(tmp_path)
        assert network.config == saved.config
        assert same(network, saved)
        assert not network.training
        assert info.layout == "official"

    def test_saves_what_the_reference_reads(self, tmp_path: Path) -> None:
        write_official_checkpoint(tmp_path / "first", seed=3, d_model=128)
        save_checkpoint(
            load_checkpoint(tmp_path / "first").network,
            tmp_path / "second",
            layout="official",
            licence="MIT",
        )
        first = load_file(tmp_path / "first" / "model.safetensors")
        second = load_file(tmp_path / "second" / "model.safetensors")
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert tensor.dtype == second[name].dtype, name
            if name == "encoder.centroid":
                assert torch.equal(tensor.float(), second[name].float())
            else:
                assert torch.equal(tensor, second[name]), name
        assert json.loads((tmp_path / "second" / "config.json").read_text()) == {
            **official_config(d_model=128),
            "licence": "MIT",
        }

    def test_every_size_comes_from_the_checkpoint(self, tmp_path: Path) -> None:
        write_official_checkpoint(tmp_path, seed=1, d_model=128, num_layers=3, d_ff=24)
        config = load_checkpoint(tmp_path).network.config
        assert config == ModelConfig.official(d_model=128, num_layers=3, d_ff=24, num_heads=2)

    def test_the_number_of_experts_is_that_of_the_centroids(self, official: Path) -> None:
        def keep_five(tensors: dict[str, torch.Tensor]) -> None:
            tensors["encoder.centroid"] = tensors["encoder.centroid"][:, :5].contiguous()
            for name in list(tensors):
                if ".experts." in name and int(name.split(".experts.")[1].split(".")[0]) >= 5:
                    del tensors[name]

        edit_tensors(official / "model.safetensors", keep_five)
        assert load_checkpoint(official).network.config.num_experts == 5

    def test_both_spellings_of_class_names_are_known(self, official: Path) -> None:
        expected = load_checkpoint(official).network

        def shorten(settings: dict[str, Any]) -> None:
            output = settings["distr_output"]
            for described in (output, *output["components"]):
                name = described["_target_"].rpartition(".")[2]
                described["_target_"] = f"uni2ts.distribution.{name}"

        edit_json(official / "config.json", shorten)
        assert same(load_checkpoint(official).network, expected)

    @pytest.mark.parametrize(
        ("place", "described"),
        [
            (0, {"_target_": "uni2ts.distribution.laplace.LaplaceOutput"}),
            (0, {"_target_": "os.getcwd"}),
            (0, {"_target_": "elsewhere.student_t.StudentTOutput"}),
            (0, "StudentTOutput"),
            (1, {"_target_": "uni2ts.distribution.normal.NormalFixedScaleOutput", "scale": 0.01}),
            (1, {"_target_": "uni2ts.distribution.normal.NormalFixedScaleOutput"}),
            (3, {"_target_": "uni2ts.distribution.log_normal.LogNormalOutput", "base": 2}),
            (3, {"_target_": ["a", "list"]}),
        ],
    )
    def test_an_unknown_component_is_an_error(
        self, place: int, described: object, official: Path
    ) -> None:
        def change(settings: dict[str, Any]) -> None:
            settings["distr_output"]["components"][place] = described

        edit_json(official / "config.json", change)
        with pytest.raises(CheckpointError, match=r"config\.json: unknown component"):
            load_checkpoint(official)

    def test_nothing_that_a_configuration_names_is_run(
        self, official: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (official / "trap.py").write_text("raise SystemExit('imported')")
        monkeypatch.syspath_prepend(official)
        edit_json(
            official / "config.json",
            lambda settings: settings["distr_output"].update({"_target_": "trap.run"}),
        )
        with pytest.raises(CheckpointError, match="distr_output must be"):
            load_checkpoint(official)
        assert "trap" not in sys.modules

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"patch_sizes": [8, 16, 32]}, "patch_sizes must be"),
            ({"patch_sizes": [32]}, "patch_sizes must be"),
            ({"scaling": False}, "scaling must be true"),
            ({"d_model": 96}, "multiple of 64"),
            ({"d_model": "64"}, "multiple of 64"),
            ({"num_layers": 0}, "num_layers must be"),
            ({"distr_output": None}, "distr_output must be"),
            ({"distr_output": {"_target_": "uni2ts.distribution.MixtureOutput"}}, "components"),
        ],
    )
    def test_another_convention_is_an_error(
        self, changes: dict[str, Any], message: str, official: Path
    ) -> None:
        edit_json(official / "config.json", lambda settings: settings.update(changes))
        with pytest.raises(CheckpointError, match=rf"config\.json: .*{message}"):
            load_checkpoint(official)

    def test_a_moirai_without_experts_is_an_error(self, official: Path) -> None:
        edit_json(official / "config.json", lambda settings: settings.pop("d_ff"))
        with pytest.raises(CheckpointError, match=r"d_ff missing.*without experts"):
            load_checkpoint(official)

    @pytest.mark.parametrize(
        ("changes", "names"),
        [
            ({"router": "linear"}, {"router"}),
            ({"centroid_choice": "nearest"}, {"centroid_choice"}),
            ({"num_heads": 4}, {"num_heads"}),
            ({"num_experts": 8}, {"num_experts"}),
            ({"mixture": ("student_t",), "output_patches": 2}, {"mixture", "output_patches"}),
            ({"time_index": "position", "scale_rule": "relative"}, {"time_index", "scale_rule"}),
        ],
    )
    def test_other_conventions_cannot_be_saved(
        self, changes: dict[str, Any], names: set[str], tmp_path: Path
    ) -> None:
        network = MoiraiMoE(ModelConfig(**{**OFFICIAL.to_dict(), **changes}))
        with pytest.raises(ConfigError) as caught:
            save_checkpoint(network, tmp_path / "new", layout="official")
        fields = ModelConfig.official().to_dict()
        assert {name for name in fields if f"{name} is " in str(caught.value)} == names
        assert not (tmp_path / "new").exists()


def golden_tokens(golden: dict[str, np.ndarray]) -> TokenBatch:
    """What the network is fed: the stored raw tokens, normalised per variate."""
    raw = torch.from_numpy(golden["token_target"]).double()
    observed = torch.from_numpy(golden["token_observed"]) > 0
    future = torch.from_numpy(golden["token_prediction_mask"]) > 0
    variate, sample, position = (
        torch.from_numpy(golden[f"token_{name}_id"]).long()
        for name in ("variate", "sample", "time")
    )
    values = torch.empty_like(raw)
    for number in variate.unique():
        own = variate == number
        known = raw[own][observed[own] & ~future[own, None]]
        values[own] = (raw[own] - known.mean()) / (known.var() + 1e-5).sqrt()
    batch = (values.float(), observed, position, variate, sample, torch.zeros_like(future))
    return TokenBatch(*(tensor[None] for tensor in batch))


def write_text(text: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(text)


def truncate(share: float) -> Callable[[Path], None]:
    return lambda file: os.truncate(file, int(share * file.stat().st_size))


def write_pickle(file: Path) -> None:
    with file.open("wb") as stream:
        pickle.dump({"weight": [1.0]}, stream)


@pytest.mark.filterwarnings("ignore:.*CC-BY-NC")
class TestDamage:
    @pytest.mark.parametrize("layout", ["native", "official"])
    @pytest.mark.parametrize(
        "damage",
        [
            truncate(0.99),
            truncate(0.01),
            truncate(0),
            write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
            write_pickle,
            lambda file: torch.save({"weight": torch.zeros(2)}, file),
            Path.unlink,
        ],
        ids=["cut", "cut_early", "empty", "text", "pickle", "torch", "missing"],
    )
    def test_damaged_weights_are_an_error(
        self, damage: Callable[[Path], object], layout: str, request: pytest.FixtureRequest
    ) -> None:
        file = request.getfixturevalue(layout) / "model.safetensors"
        damage(file)
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(file.parent)
        assert str(file) in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"format": "moirai', "not valid JSON"),
            ("", "not valid JSON"),
            ("\x80\x81", "not valid JSON"),
            ("[" * 100_000, "not valid JSON"),
            ("[1, 2]", "JSON object, got list"),
            ('{"model_type": "t5", "d_model": 512}', "another model.*'t5'"),
            ("{}", "another model"),
            ('{"format": "moirai-moe-forecaster"}', "format_version must be"),
            ('{"format": "moirai-moe-forecaster", "format_version": 2}', "--upgrade"),
            ('{"format": "moirai-moe-forecaster", "format_version": 1}', "'model' must hold"),
        ],
    )
    def test_a_foreign_configuration_is_an_error(
        self, text: str, message: str, native: Path
    ) -> None:
        (native / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(CheckpointError, match=rf"config\.json.*{message}"):
            load_checkpoint(native)

    def test_a_missing_configuration_is_an_error(self, native: Path) -> None:
        (native / "config.json").unlink()
        with pytest.raises(CheckpointError, match=r"config\.json \(No such file"):
            load_checkpoint(native)

    def test_a_contradictory_configuration_is_an_error(self, native: Path) -> None:
        edit_json(native / "config.json", lambda s: s["model"].update(num_heads=3))
        with pytest.raises(CheckpointError, match="num_heads"):
            load_checkpoint(native)
        edit_json(native / "config.json", lambda s: s["model"].update(num_heads=2, wheels=4))
        with pytest.raises(CheckpointError, match="wheels"):
            load_checkpoint(native)

    @pytest.mark.parametrize(
        ("layout", "name"),
        [("native", "blocks.1.experts.weight_out"), ("official", "encoder.norm.weight")],
    )
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda tensors, name: tensors.pop(name), "missing: {}"),
            (lambda tensors, name: tensors.update(wheel=torch.zeros(2)), "unexpected: wheel"),
            (
                lambda tensors, name: tensors.update({name: torch.zeros(3, 5)}),
                "of another shape: {} (3, 5), expected (",
            ),
            (
                lambda tensors, name: tensors.update({name: tensors[name].int()}),
                "not of a floating-point type: {} I32",
            ),
        ],
        ids=["missing", "unexpected", "shape", "dtype"],
    )
    def test_tensors_that_do_not_fit_are_named(
        self,
        change: Callable[[dict[str, torch.Tensor], str], object],
        message: str,
        layout: str,
        name: str,
        request: pytest.FixtureRequest,
    ) -> None:
        file = request.getfixturevalue(layout) / "model.safetensors"
        edit_tensors(file, lambda tensors: change(tensors, name))
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(file.parent)
        assert message.format(name) in str(caught.value)
        assert str(file) in str(caught.value)

    def test_of_many_tensors_the_first_are_named_and_all_counted(self, official: Path) -> None:
        def remove_experts(tensors: dict[str, torch.Tensor]) -> None:
            for name in [name for name in tensors if ".experts." in name]:
                del tensors[name]

        edit_tensors(official / "model.safetensors", remove_experts)
        with pytest.raises(CheckpointError, match=r"experts\.0\.fc1\.weight.*\(96 in all\)"):
            load_checkpoint(official)

    def test_missing_centroids_are_an_error(self, official: Path) -> None:
        edit_tensors(official / "model.safetensors", lambda t: t.pop("encoder.centroid"))
        with pytest.raises(CheckpointError, match=r"missing: encoder\.centroid"):
            load_checkpoint(official)


class TestSaving:
    def test_other_files_stay_and_nothing_is_left_behind(self, native: Path) -> None:
        (native / "README.md").write_text("mine")
        save_checkpoint(random_network(NATIVE, seed=1), native)
        assert sorted(os.listdir(native)) == ["README.md", "config.json", "model.safetensors"]
        assert same(load_checkpoint(native).network, random_network(NATIVE, seed=1))

    def test_a_failed_save_leaves_the_old_checkpoint(
        self, native: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full_disk(tensors: object, file: Path, metadata: object) -> None:
            file.write_bytes(b"half of it")
            raise OSError("No space left on device")

        monkeypatch.setattr(store, "save_file", full_disk)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(random_network(OFFICIAL), native)
        assert sorted(os.listdir(native)) == ["config.json", "model.safetensors"]
        assert same(load_checkpoint(native).network, random_network(NATIVE))

    @pytest.mark.parametrize(
        "after",
        [
            {"mixture": ("normal_fixed",)},  # other shapes
            {"time_index": "observed"},  # the same shapes under another convention
        ],
    )
    def test_between_its_two_renames_a_save_is_whole(
        self, after: dict[str, Any], native: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        new = random_network(ModelConfig(**{**NATIVE.to_dict(), **after}), seed=1)
        rename, seen = os.replace, []

        def rename_and_load(source: Path, target: Path) -> None:
            rename(source, target)
            network = load_checkpoint(native).network
            seen.append(network.config == new.config and same(network, new))

        monkeypatch.setattr(os, "replace", rename_and_load)
        save_checkpoint(new, native)
        assert seen == [True, True]

    def test_an_edited_configuration_counts(self, native: Path) -> None:
        save_checkpoint(random_network(NATIVE), native)  # over another one
        edit_json(native / "config.json", lambda s: s["model"].update(max_seq_len=64))
        assert load_checkpoint(native).network.config.max_seq_len == 64

    def test_a_checkpoint_can_be_saved_over_itself(self, native: Path) -> None:
        network = load_checkpoint(native).network
        save_checkpoint(network, native, dtype=torch.bfloat16)
        assert same(network, random_network(NATIVE))
        assert load_checkpoint(native).network.config == NATIVE

    def test_others_may_read_it_as_the_umask_says(self, tmp_path: Path) -> None:
        before = os.umask(0o022)
        try:
            save_checkpoint(random_network(NATIVE), tmp_path)
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o644

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"layout": "onnx"}, "layout must be"),
            ({"dtype": torch.int8}, "dtype in native layout"),
            ({"layout": "official", "dtype": torch.bfloat16}, "dtype in official layout"),
        ],
    )
    def test_unknown_arguments_are_errors(
        self, arguments: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            save_checkpoint(random_network(NATIVE), tmp_path / "new", **arguments)
        assert not (tmp_path / "new").exists()

    def test_a_file_is_not_replaced_by_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(CheckpointError, match="is a file"):
            save_checkpoint(random_network(NATIVE), tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_network_with_adapters_is_an_error(self, native: Path, tmp_path: Path) -> None:
        network = load_checkpoint(native).network
        network.blocks[0].adapter = torch.nn.Linear(2, 2)
        with pytest.raises(CheckpointError, match=r"blocks\.0\.adapter\.weight"):
            save_checkpoint(network, tmp_path / "new")
        assert not (tmp_path / "new").exists()


class TestPlaces:
    @pytest.mark.parametrize(
        "name",
        [
            "",
            "small",
            "./runs",
            "../a/b",
            "/no/such",
            "~/no/such",
            "a/b/c",
            "a/.b",
            "a b/c",
            "a/",
            5,
        ],
    )
    def test_what_can_be_no_checkpoint_is_an_error(
        self, name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(places, "_download", lambda *_: pytest.fail("asked the Hub"))
        with pytest.raises(CheckpointError, match=r"a directory that holds config\.json") as caught:
            load_checkpoint(name)
        assert repr(name) in str(caught.value)

    def test_a_path_object_is_never_a_hub_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(places, "_download", lambda *_: pytest.fail("asked the Hub"))
        with pytest.raises(CheckpointError, match="does not exist"):
            load_checkpoint(Path("organisation/name"))

    def test_a_file_is_an_error(self, native: Path) -> None:
        with pytest.raises(CheckpointError, match="is a file"):
            load_checkpoint(native / "config.json")

    def test_a_directory_comes_before_the_hub(
        self, native: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(native, native.parent / "organisation" / "name")
        monkeypatch.chdir(native.parent)
        assert load_checkpoint("organisation/name").info.revision is None

    @pytest.mark.parametrize("name", ["directory", None])
    def test_a_revision_of_a_local_checkpoint_is_an_error(
        self, name: str | None, native: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pretend_bundled(native, monkeypatch)
        with pytest.raises(CheckpointError, match="revision='v1' applies to Hub names only"):
            load_checkpoint(native if name else None, revision="v1")

    def test_none_is_the_checkpoint_in_the_package(
        self, native: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pretend_bundled(native, monkeypatch)
        network, info = load_checkpoint()
        assert same(network, random_network(NATIVE))
        assert info.name == "bundled"

    def test_an_installation_without_weights_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(places, "files", lambda package: tmp_path)
        with pytest.raises(CheckpointError, match="bundled checkpoint is missing"):
            load_checkpoint()

    def test_the_bundled_checkpoint(self) -> None:
        if not (files("moirai_moe_forecaster") / "weights" / "config.json").is_file():
            pytest.skip("this tree holds no bundled checkpoint")
        before = torch.get_rng_state()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            network, info = load_checkpoint()
        assert torch.equal(torch.get_rng_state(), before)
        assert info.layout == "native"
        assert info.licence not in ("unspecified", "CC-BY-NC-4.0")
        assert all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values())


def pretend_bundled(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(directory, directory.parent / "package" / "weights")
    monkeypatch.setattr(places, "files", lambda package: directory.parent / "package")


class TestLicence:
    def test_official_weights_warn_once(self, official: Path) -> None:
        with pytest.warns(UserWarning, match=r"CC-BY-NC-4\.0: commercial use is not") as caught:
            info = load_checkpoint(official).info
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert info.licence == "CC-BY-NC-4.0"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_checkpoint(official)

    def test_every_checkpoint_warns_for_itself(self, official: Path) -> None:
        shutil.copytree(official, official.parent / "copy")
        for name in ("official", "copy"):
            with pytest.warns(UserWarning, match=f"weights of {name} are licensed"):
                load_checkpoint(official.parent / name)

    def test_one_that_states_its_licence_does_not_warn(self, tmp_path: Path) -> None:
        save_checkpoint(random_network(OFFICIAL), tmp_path, layout="official", licence="MIT")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_checkpoint(tmp_path).info.licence == "MIT"

    def test_native_checkpoints_do_not_warn(self, native: Path) -> None:
        edit_json(native / "config.json", lambda settings: settings.pop("licence"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_checkpoint(native).info.licence == "unspecified"


CLIENT = """
import hashlib, warnings
from moirai_moe_forecaster.checkpoint import load_checkpoint
from moirai_moe_forecaster.errors import CheckpointError

def attempt(name, revision):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            network, info = load_checkpoint(name, revision=revision)
        except CheckpointError as error:
            return {"error": str(error), "cause": type(error.__cause__).__name__}
    total = sum(tensor.double().sum().item() for tensor in network.state_dict().values())
    return {**info._asdict(), "total": total, "warnings": [str(one.message) for one in caught]}

print(json.dumps([attempt(*request) for request in json.loads(sys.argv[1])]))
"""


def in_new_process(script: str, *arguments: str, **environment: str) -> Any:
    """Run a script that prints one line of JSON."""
    prelude = "import json, sys, torch\ntorch.set_num_threads(1)\n"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    result = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(script), *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


REQUESTS = (
    ("acme/model", None),
    ("acme/model", None),
    ("acme/model", "v2"),
    ("acme/model", "v9"),
    ("acme/unknown", None),
    ("acme/private", None),
    ("acme/no-weights", None),
    ("acme/nothing", None),
    ("acme/not--allowed", None),
    ("Salesforce/moirai", None),
)


class Online(NamedTuple):
    """What came of `REQUESTS`, in order; what the server was asked for; where the client was."""

    answers: list[Any]
    requests: list[Request]
    environment: dict[str, str]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Files]]:
    root = tmp_path_factory.mktemp("hub")
    save_checkpoint(random_network(NATIVE, seed=0), root / "first", licence="MIT")
    save_checkpoint(random_network(NATIVE, seed=1), root / "second", licence="BSD")
    write_official_checkpoint(root / "official", seed=1, d_model=64, num_layers=1, d_ff=8)
    first, second, official = (
        {file.name: file.read_bytes() for file in (root / name).iterdir()}
        for name in ("first", "second", "official")
    )
    return {
        "acme/model": {"main": first | {"pytorch_model.bin": b"large"}, "v2": second},
        "acme/private": {"main": first},
        "acme/no-weights": {"main": {"config.json": b"{}"}},
        "acme/nothing": {"main": {"README.md": b"empty"}},
        "Salesforce/moirai": {"main": official},
    }


@pytest.fixture(scope="module")
def online(
    repositories: dict[str, dict[str, Files]], tmp_path_factory: pytest.TempPathFactory
) -> Online:
    """The server is shut when this returns."""
    home = str(tmp_path_factory.mktemp("home"))
    with HubServer(repositories, gated="acme/private") as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": home}
        answers = in_new_process(CLIENT, json.dumps(REQUESTS), **environment)
    return Online(answers, hub.requests, environment)


class TestHub:
    """Against a local server, by clients in processes of their own, told by their environment."""

    @staticmethod
    def is_network(answer: dict[str, Any], seed: int) -> bool:
        tensors = random_network(NATIVE, seed).state_dict().values()
        total = sum(tensor.double().sum().item() for tensor in tensors)
        return bool(answer["total"] == pytest.approx(total, abs=1e-9))

    def test_a_checkpoint_is_downloaded(self, online: Online, repositories: Any) -> None:
        first, again, *_ = online.answers
        assert first == again
        assert self.is_network(first, seed=0)
        assert first["name"] == first["source"] == "acme/model"
        assert first["layout"] == "native"
        assert first["licence"] == "MIT"
        assert first["revision"] == commit_of(repositories["acme/model"]["main"])
        assert first["warnings"] == []

    def test_a_named_revision_is_asked_for(self, online: Online, repositories: Any) -> None:
        answer = online.answers[2]
        assert self.is_network(answer, seed=1)
        assert answer["revision"] == commit_of(repositories["acme/model"]["v2"])
        assert Request("HEAD", "/acme/model/resolve/v2/config.json") in online.requests

    def test_nothing_else_is_downloaded_and_nothing_twice(
        self, online: Online, repositories: Any
    ) -> None:
        got = [path for method, path in online.requests if method == "GET"]
        assert len(got) == len(set(got))
        assert not any("pytorch_model" in path for path in got)
        snapshots = Path(online.environment["HF_HOME"]).rglob("models--acme--model/snapshots/*/*")
        assert sorted((path.parent.name, path.name) for path in snapshots) == sorted(
            (commit_of(files), name)
            for files in repositories["acme/model"].values()
            for name in ("config.json", "model.safetensors")
        )

    def test_both_files_are_of_one_commit(self, online: Online, repositories: Any) -> None:
        weights = [path for _, path in online.requests if path.endswith("model.safetensors")]
        asked = {path.split("/")[4] for path in weights if path.startswith("/acme/model/")}
        assert asked == {commit_of(files) for files in repositories["acme/model"].values()}

    @pytest.mark.parametrize(
        ("number", "message", "cause"),
        [
            (3, "no revision 'v9'", "RevisionNotFoundError"),
            (4, "check the name", "RepositoryNotFoundError"),
            (5, "log in with `hf auth login`", "GatedRepoError"),
            (6, "does not hold config.json and model.safetensors", "EntryNotFoundError"),
            (7, "does not hold config.json and model.safetensors", "EntryNotFoundError"),
            (8, "'acme/not--allowed'", "HFValidationError"),
        ],
    )
    def test_what_cannot_be_downloaded_is_an_error(
        self, number: int, message: str, cause: str, online: Online
    ) -> None:
        answer = online.answers[number]
        assert message in answer["error"]
        assert repr(REQUESTS[number][0]) in answer["error"]
        assert "None for the bundled checkpoint" in answer["error"]
        assert answer["cause"].removeprefix("Remote") == cause  # releases differ in the prefix

    def test_official_weights_of_the_hub_warn(self, online: Online) -> None:
        answer = online.answers[9]
        assert answer["layout"] == "official"
        assert answer["licence"] == "CC-BY-NC-4.0"
        assert len(answer["warnings"]) == 1
        assert "Salesforce/moirai" in answer["warnings"][0]

    @pytest.mark.parametrize("switched_off", [False, True])
    def test_the_cache_works_without_a_network(self, switched_off: bool, online: Online) -> None:
        environment, wanted = dict(online.environment), [REQUESTS[0], REQUESTS[2]]
        if switched_off:  # without the switch, the library would go on trying for half a minute
            environment["HF_HUB_OFFLINE"] = "1"
            wanted.append(("acme/elsewhere", None))
        first, second, *others = in_new_process(CLIENT, json.dumps(wanted), **environment)
        assert first == online.answers[0]
        assert second == online.answers[2]
        for answer in others:
            assert "HF_HUB_OFFLINE" in answer["error"]
            assert answer["cause"] == "LocalEntryNotFoundError"

    def test_without_the_library_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(MissingExtraError, match=r"moirai-moe-forecaster\[hub\]"):
            load_checkpoint("acme/model")
