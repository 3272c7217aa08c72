"""Recipes, settings files and options become one run; what does not fit is one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minet_sdk.errors import TrainingError
from minet_sdk.training import hardware
from minet_sdk.training.assembling import assemble, read_settings, to_yaml
from minet_sdk.training.config import MinetConfig, preset
from minet_sdk.training.loading import Augmentation
from minet_sdk.training.methods import METHODS
from minet_sdk.training.objectives import make_objective
from minet_sdk.training.recipes import RECIPES
from minet_sdk.training.settings import TrainingSettings


def test_later_layers_win() -> None:
    run = assemble(
        {"recipe": "quick", "steps": 40, "seed": 1, "data_options": {"anatomy": "knee", "preset": "knee"}},
        {"seed": 2, "data_options": {"preset": "random"}, "patch": None},
    )
    assert run.settings.steps == 40
    assert run.settings.seed == 2
    assert run.settings.patch == RECIPES["quick"].settings["patch"]
    assert run.settings.data_options == {"anatomy": "knee", "preset": "random"}


@pytest.mark.parametrize("scale", [2, 4])
def test_the_papers_recipe_is_the_papers(scale: int) -> None:
    """L = 6, Adam 1e-5, 50 epochs, 0.3 / 0.7, no schedule: Feng et al., MICCAI 2021, section 3."""
    settings = assemble({"recipe": "paper", "scale": scale}).settings
    network = settings.network
    assert isinstance(network, MinetConfig)
    assert (network.stages, network.blocks, network.channels, network.scale) == (6, 6, 64, scale)
    assert (network.affinity, network.skip) == ("paper", "none")
    assert (settings.learning_rate, settings.schedule, settings.warm_up) == (1e-5, "constant", 0)
    assert (settings.epochs, settings.steps) == (50, 0)
    assert (settings.objective, settings.objective_settings["target_weight"]) == ("eq6", 0.3)


def test_published_methods_train_as_published_and_matched_ones_alike() -> None:
    """A comparison under one recipe leaves a publication's own settings aside."""
    assert assemble({"method": "edsr", "size": "published"}).settings.learning_rate == 1e-4
    assert assemble({"method": "edsr"}).settings.learning_rate == 1e-3
    assert assemble({"method": "edsr", "size": "published", "learning_rate": 3e-4}).settings.learning_rate == 3e-4


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.trained == "once"])
def test_every_method_assembles_in_both_sizes(name: str) -> None:
    for size in ("matched", "published"):
        settings = assemble({"method": name, "size": size, "scale": 4}).settings
        assert settings.network == METHODS[name].config(4, "matched" if size == "matched" else "published")
        assert settings.objective == METHODS[name].objective


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_settings_file_gives_the_run_that_wrote_it(recipe: str, tmp_path: Path) -> None:
    run = assemble({"recipe": recipe, "data_path": "labels", "network": {"attention": False}, "average": 0.99})
    path = tmp_path / "run.yaml"
    path.write_text(to_yaml(run))
    assert assemble(read_settings(path)) == run


def test_the_fast_recipe_is_the_student() -> None:
    assert assemble({"recipe": "fast", "scale": 4}).settings.network == preset("fast", 4)
    assert assemble({"preset": "fast", "scale": 4}).settings.network == preset("fast", 4)


@pytest.mark.parametrize(
    ("method", "changed"),
    [
        ("minet-no-reference", {"reference": False}),
        ("minet-reduction-only", {"integration": "reduction"}),
        ("minet-no-h", {"integration": "none"}),
        ("minet-no-attention", {"attention": False}),
        ("minet-released-affinity", {"affinity": "released"}),
        ("minet-fast", {}),
    ],
)
def test_a_variant_has_every_preset_too(method: str, changed: dict[str, Any]) -> None:
    for scale in (2, 4):
        network = assemble({"method": method, "preset": "deep", "scale": scale}).settings.network
        assert network == replace(preset("deep", scale), **changed)


def test_steps_and_epochs_replace_each_other() -> None:
    assert assemble({"recipe": "paper", "steps": 30}).settings.epochs == 0
    assert assemble({"recipe": "small", "epochs": 3}).settings.steps == 0
    with pytest.raises(TrainingError, match="steps is 3 and epochs 3; give one of them"):
        assemble({"steps": 3, "epochs": 3})


def test_epochs_become_steps_of_the_data() -> None:
    settings = assemble({"epochs": 4}).settings.in_steps(25)
    assert (settings.steps, settings.validate_every) == (100, 25)
    assert assemble({"steps": 36}).settings.in_steps(0).validate_every == 4
    with pytest.raises(TrainingError, match="made on the fly and have no epochs: give steps"):
        assemble({"epochs": 4}).settings.in_steps(0)


def test_yaml_numbers_in_any_notation_are_understood(tmp_path: Path) -> None:
    """YAML 1.1 takes 1e-3 for text."""
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate: 1e-3\nsteps: 2e4\ndata_path: labels\n")
    run = assemble(read_settings(path))
    assert run.settings.learning_rate == 1e-3
    assert run.settings.steps == 20_000
    assert run.machine.data_path == Path("labels")


def test_nested_values_are_converted_like_those_above() -> None:
    network = assemble({"network": {"channels": 32.0, "stages": "2"}}).settings.network
    assert isinstance(network, MinetConfig)
    assert (network.channels, network.stages) == (32, 2)
    assert type(network.channels) is int
    run = assemble({"objective_settings": {"detail_weight": "1e-3"}, "augmentation": {"noise": ["1e-3", 1e-2]}})
    assert make_objective("eq6", run.settings.objective_settings).settings.detail_weight == 1e-3
    assert Augmentation.from_dict(run.settings.augmentation).noise == (1e-3, 1e-2)
    assert Augmentation.from_dict({"noise": None}).noise is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lerning_rate: 1", r"run\.yaml: no setting is called 'lerning_rate'; did you mean learning_rate\?"),
        ("xyzzy: 1", r"run\.yaml: no setting is called 'xyzzy'; known are recipe, "),
        ("- 1", r"run\.yaml: holds list; expected settings by name"),
        ("", r"run\.yaml: holds NoneType; expected settings by name"),
        ("a: [", r"run\.yaml: not YAML \("),
    ],
)
def test_a_settings_file_that_is_none_is_one_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(TrainingError, match=message) as caught:
        read_settings(path)
    assert "\n" not in str(caught.value)


def test_a_missing_settings_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"none\.yaml: cannot be read .* --config names a YAML file"):
        read_settings(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": "best"}, "recipe is 'best'; choose one of paper, small, fast, quick"),
        ({"method": "unet"}, "method is 'unet'; choose one of bicubic"),
        ({"method": "bicubic"}, "bicubic is an interpolation, which nothing trains"),
        ({"method": "smore-2d"}, "smore-2d is trained when it is evaluated"),
        (
            {"method": "edsr", "preset": "small"},
            "preset is 'small', method edsr; presets are of MINet and its variants",
        ),
        ({"network": {"depth": 3}}, "network has no depth; minet knows reference, stages"),
        ({"network": 3}, "network is 3; expected settings by name"),
        ({"steps": "many"}, "steps is 'many'; expected a whole number"),
        ({"steps": 2.5}, "steps is 2.5; expected a whole number"),
        ({"steps": True}, "steps is True; expected a whole number"),
        ({"steps": float("inf")}, "steps is inf; expected a whole number"),
        ({"learning_rate": [1]}, r"learning_rate is \[1\]; expected a number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; it must be at least 0"),
        ({"learning_rate": 0}, "learning_rate is 0; nothing would be learnt"),
        ({"schedule": "linear"}, "schedule is 'linear'; expected cosine or constant"),
        ({"precision": "64"}, "precision is '64'; expected 32-true or bf16-mixed or 16-mixed"),
        ({"tensorboard": 1}, "tensorboard is 1; expected true or false"),
        ({"average": 1.0}, "average is 1.0; it must be below 1"),
        ({"patch": 33}, "patch is 33; it must be a multiple of the scale 2"),
        ({"steps": 40, "validate_every": 15}, "40 steps are not a multiple of 15"),
        ({"teacher": "a.safetensors"}, "teacher is a.safetensors and teacher_weight 0.0; give both or neither"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"devices": -1}, "devices is -1; it must be at least 0"),
        ({"scale": 3}, "scale is 3"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"seed": 2**64}, r"seed is 18446744073709551616; it must be below 2\^64"),
        ({"learning_rate": "inf"}, "learning_rate is inf; it must be finite"),
        (
            {"objective_settings": {"target_weight": "much"}},
            "objective_settings: target_weight is 'much'; expected a n",
        ),
        ({"objective_settings": {"texture_weight": float("inf")}}, "texture_weight is inf; it must be at least 0, and"),
        ({"network": {"channels": "wide"}}, "network: channels is 'wide'; expected a whole number"),
        ({"network": {"stages": 1.5}}, "network: stages is 1.5; expected a whole number"),
        ({"network": {"attention": "no"}}, "network: attention is 'no'; expected true or false"),
        ({"network": {"skip": "cubic"}}, "network: skip is 'cubic'; expected none or sinc"),
        ({"method": "edsr", "network": {"blocks": "ten"}}, "network: blocks is 'ten'; expected a whole number"),
        (
            {"method": "edsr", "network": {"residual_scaling": "x"}},
            "network: residual_scaling is 'x'; expected a number",
        ),
        ({"method": "edsr", "network": {"residual_scaling": 0}}, "residual_scaling is 0.0; it must be above 0"),
        ({"augmentation": {"noise": 0.1}}, r"augmentation: noise is 0.1; expected \[a number, a number\]"),
        (
            {"augmentation": {"noise": [0.1, 0.2, 0.3]}},
            r"augmentation: noise is \[0.1, 0.2, 0.3\]; expected \[a number",
        ),
        ({"augmentation": {"noise": [0, 0.1]}}, r"noise is \[0.0, 0.1\]; expected two numbers above 0"),
        ({"augmentation": {"mirrored": "yes"}}, "augmentation: mirrored is 'yes'; expected a number"),
        ({"augmentation": {"mirrored": 5}}, "mirrored is 5.0; it must be between 0 and 1"),
        ({"data_options": {"contrast": "knee"}}, "synthetic data: contrast is 'knee'; expected settings by name"),
        ({"data_options": {"contrast": {"size": "big"}}}, "contrast: size is 'big'; expected a whole number"),
        ({"data_options": {"contrast": {"noise": 0.1}}}, r"contrast: noise is 0.1; expected \[a number, a number\]"),
        ({"data_options": {"anatomy": "dog"}}, "synthetic data: anatomy is 'dog'; expected brain or knee"),
        ({"data": "nifti", "data_options": {"layout": "foo"}}, "nifti data: layout is 'foo'; expected auto or ixi"),
        ({"data": "nifti", "data_options": {"slice_axis": "axial"}}, "slice_axis is 'axial'; expected auto or slices"),
        ({"data": "nifti", "data_options": {"cache": 3}}, "nifti data: cache is 3; expected a path"),
        ({"data": "nifti", "data_options": {"splits": ["a"]}}, r"nifti data: splits is \['a'\]; expected a path"),
        ({"data": "dicom", "data_options": {"reference": 5}}, "dicom data: reference is 5; expected T1 or T2"),
    ],
)
def test_what_does_not_fit_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        assemble(given)
    assert "\n" not in str(caught.value)


def test_every_setting_is_recorded() -> None:
    """A field that `to_dict` forgot could change on resumption unnoticed."""
    settings = assemble({}).settings
    assert list(settings.to_dict()) == list(vars(settings))
    assert isinstance(settings, TrainingSettings)
    assert settings.to_dict()["network"]["kind"] == "minet"


@pytest.mark.parametrize(
    ("instructions", "expected"), [(["avx2"], "32-true"), (["avx2", "avx512f", "avx512_bf16"], "bf16-mixed")]
)
def test_bfloat16_where_there_are_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, instructions: list[str], expected: str
) -> None:
    monkeypatch.setattr(hardware, "instruction_sets", lambda: instructions)
    assert assemble({"accelerator": "cpu"}).settings.precision == expected
    assert assemble({"accelerator": "cpu", "precision": "bf16-mixed"}).settings.precision == "bf16-mixed"
    assert assemble({"accelerator": "cpu", "recipe": "paper"}).settings.precision == "32-true"
