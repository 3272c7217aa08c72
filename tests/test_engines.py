"""Plans on disk: profiles, keys, what is found and what is refused. No engine is needed for any of it."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from minet_sdk.bundle import Bundle, Manifest
from minet_sdk.engines import (
    AMPERE_PLUS,
    ANY_GPU,
    EngineKey,
    Plan,
    Search,
    bundle_folder,
    cache_folder,
    find,
    load,
    runs_on,
    store,
)
from minet_sdk.errors import BackendError, InputError
from minet_sdk.gpus import Gpu, lacks_precision, parse_capability
from minet_sdk.profiles import PROFILE_SETS, Profile, Size, choose_profile, covering, parse_size, profile_set

GPU = Gpu("NVIDIA L4", (8, 9), "13.0")
SMALL = Profile((1, 16, 16), (1, 80, 80), (1, 96, 96))
LARGE = Profile((1, 16, 16), (1, 160, 160), (4, 320, 320))
DATA = b"a serialised engine" * 50


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    manifest = Manifest("random", 2, "fp16", True, "cosine", 1e-2, "0")
    (tmp_path / "bundle").mkdir()
    return Bundle(tmp_path / "bundle", manifest, "ab" * 32)


def key_of(bundle: Bundle, **changes: object) -> EngineKey:
    key = EngineKey(
        engine="tensorrt-rtx",
        engine_version="1.7.1.116",
        graph="target",
        bundle_sha256=bundle.sha256,
        precision="fp16",
        profiles=(SMALL, LARGE),
        gpu=ANY_GPU,
        driver=ANY_GPU,
        integration="inlined",
    )
    return replace(key, **changes)  # type: ignore[arg-type]


def search(bundle: Bundle, *, version: str = "1.7.1.116", gpu: Gpu = GPU, target: Size | None = None) -> Search:
    return find(bundle, "target", engine="tensorrt-rtx", engine_version=version, gpu=gpu, target=target)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (((1, 8, 16), (1, 16, 16), (1, 16, 16)), "side of 8"),
        (((1, 16, 16), (1, 16, 16), (1, 16, 10_000)), "side of 10000"),
        (((0, 16, 16), (1, 16, 16), (1, 16, 16)), "batch of 0"),
        (((1, 16, 16), (1, 16, 16), (2_000_000_000, 16, 16)), "batch of 2000000000"),
        (((1, 64, 16), (1, 32, 16), (1, 64, 16)), "minimum 1x64x16 is larger than optimum 1x32x16"),
        (((1, 16, 16), (2, 16, 16), (1, 64, 64)), "optimum 2x16x16 is larger than maximum"),
        (((16, 16), (16, 16), (16, 16)), "three integers"),
        (((1, 16.0, 16), (1, 16, 16), (1, 16, 16)), "three integers"),
    ],
)
def test_impossible_profiles_are_refused(sizes: tuple[Size, Size, Size], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Profile(*sizes)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(
    ("name", "matrices"),
    [
        ("brain", ["160x160", "192x192", "240x240", "256x256", "256x208", "320x320", "384x384", "512x512"]),
        ("knee", ["320x320", "384x384", "640x320", "640x368", "640x640"]),
        ("all", ["160x160", "240x240", "256x256", "320x320", "384x384", "512x512", "640x368", "640x640"]),
    ],
)
def test_named_sets_cover_what_scanners_reconstruct(name: str, matrices: list[str], scale: int) -> None:
    profiles = profile_set(name, scale)
    for matrix in matrices:
        _, rows, columns = parse_size(matrix)
        target = (1, -(-rows // scale), -(-columns // scale))
        assert any(profile.covers(target) for profile in profiles), matrix
    assert covering(profiles, (1, 24, 20)) == profiles, "the golden vector fits"
    assert all(profile.covers((4, 64, 64)) for profile in profile_set(name, scale, batch=4))


def test_every_named_set_is_tested() -> None:
    assert set(PROFILE_SETS) == {"brain", "knee", "all"}
    with pytest.raises(InputError, match=r"'heart'; choose one of brain, knee, all"):
        profile_set("heart", 2)


@pytest.mark.parametrize(("text", "size"), [("160x128", (1, 160, 128)), ("4X160x128", (4, 160, 128))])
def test_sizes_are_rows_and_columns(text: str, size: Size) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["160", "1x2x3x4", "160x", "axb", "-1x16", "\uff11x16"])
def test_other_texts_are_no_sizes(text: str) -> None:
    with pytest.raises(InputError, match="give HxW or NxHxW"):
        parse_size(text)


def test_capabilities_have_a_dot() -> None:
    assert parse_capability("12.0") == (12, 0)
    for text in ("89", "8.", "8.x", ""):
        with pytest.raises(InputError, match=r"give major\.minor"):
            parse_capability(text)


def test_the_golden_vector_gets_a_profile_of_its_own_where_none_covers_it() -> None:
    fixed = Profile((1, 160, 160), (1, 160, 160), (1, 160, 160))
    added = covering([fixed], (1, 24, 20))
    assert added[0] == fixed
    assert added[1:] == (Profile((1, 24, 20), (1, 24, 20), (1, 24, 20)),)


def test_a_target_takes_the_profile_tuned_nearest_to_it() -> None:
    assert choose_profile([SMALL, LARGE], (1, 90, 90), "plan") == 0
    assert choose_profile([SMALL, LARGE], (1, 97, 90), "plan") == 1
    assert choose_profile([LARGE, SMALL], (1, 90, 90), "plan") == 1


def test_a_target_outside_is_told_what_the_plan_covers() -> None:
    with pytest.raises(InputError) as caught:
        choose_profile([SMALL, LARGE], (1, 400, 400), "target-1.plan")
    message = str(caught.value)
    assert "target 1x400x400 lies outside what target-1.plan covers" in message
    assert "1x16x16 to 1x96x96, best at 1x80x80; 1x16x16 to 4x320x320, best at 1x160x160" in message


def test_keys_change_with_every_field(bundle: Bundle) -> None:
    changes: dict[str, object] = {
        "engine": "tensorrt",
        "engine_version": "1.7.1.117",
        "graph": "model",
        "bundle_sha256": "cd" * 32,
        "precision": "bf16",
        "profiles": (SMALL, replace(LARGE, maximum=(4, 320, 321))),
        "gpu": "8.9",
        "driver": "13.0",
        "integration": "plugin-mix",
        "settings": ("tf32",),
    }
    assert set(changes) == {field.name for field in fields(EngineKey)}
    digests = {key_of(bundle, **{name: value}).digest for name, value in changes.items()} | {key_of(bundle).digest}
    assert len(digests) == len(changes) + 1
    assert key_of(bundle).digest == key_of(bundle).digest


def test_what_is_stored_is_found(bundle: Bundle) -> None:
    stored = store(bundle_folder(bundle), key_of(bundle), DATA, {"build_seconds": 0.5})
    found = search(bundle, target=(1, 90, 90))
    assert found == Search(stored, {})
    assert found.plan is not None
    assert found.plan.read() == DATA
    assert found.plan.details == {"build_seconds": 0.5}
    assert found.plan.profile_for((1, 90, 90)) == 0
    assert sorted(path.name for path in bundle_folder(bundle).iterdir()) == [
        stored.path.with_suffix(".json").name,
        stored.path.name,
    ]


def damage_byte(plan: Plan) -> None:
    data = bytearray(plan.path.read_bytes())
    data[100] ^= 1
    plan.path.write_bytes(data)


def cut_short(plan: Plan) -> None:
    plan.path.write_bytes(plan.path.read_bytes()[:-1])


def lose_json(plan: Plan) -> None:
    plan.path.with_suffix(".json").unlink()


def garble_json(plan: Plan) -> None:
    plan.path.with_suffix(".json").write_bytes(b"{\xff")


def edit(name: str, value: object) -> object:
    def change(plan: Plan) -> None:
        source = plan.path.with_suffix(".json")
        record = json.loads(source.read_text())
        (record["key"] if name in record["key"] else record)[name] = value
        source.write_text(json.dumps(record))

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_byte, "does not match its SHA-256"),
        (cut_short, "does not match its SHA-256"),
        (lose_json, "cannot be read"),
        (garble_json, "is not valid JSON"),
        (edit("precision", "fp32"), "describes target-"),
        (edit("bundle_sha256", "ef" * 32), "describes target-"),
        (edit("profiles", [{"minimum": [1, 1, 1]}]), "is damaged or was changed"),
        (edit("profiles", None), "is damaged or was changed"),
        (edit("format", 2), "has plan format 2"),
        (edit("sha256", "00" * 32), "does not match its SHA-256"),
        (edit("key", {}), "is damaged or was changed"),
        (edit("key", {"colour": 1, "profiles": []}), "is damaged or was changed"),
    ],
)
def test_a_damaged_plan_is_refused_by_name(bundle: Bundle, damage: object, reason: str) -> None:
    plan = store(bundle_folder(bundle), key_of(bundle), DATA)
    damage(plan)  # type: ignore[operator]
    found = search(bundle)
    assert found.plan is None
    assert reason in found.passed_over[plan.path.name]
    assert "build" in found.passed_over[plan.path.name], "the remedy"
    with pytest.raises(BackendError, match=reason):
        load(plan.path).read()


def test_an_interrupted_write_leaves_nothing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(BackendError, match="no space left on device"):
        store(bundle_folder(bundle), key_of(bundle), DATA)
    assert search(bundle).plan is None


def test_a_folder_that_cannot_be_made_is_named(bundle: Bundle) -> None:
    bundle_folder(bundle).write_text("a file in its place")
    with pytest.raises(BackendError, match="engines cannot take a plan"):
        store(bundle_folder(bundle), key_of(bundle), DATA)


@pytest.mark.parametrize(
    ("changes", "wanted", "reason"),
    [
        ({"bundle_sha256": "cd" * 32}, {}, "was built from another bundle (cdcdcdcdcdcd, this one is abababababab)"),
        ({"engine_version": "1.7.0.1"}, {}, "was built by tensorrt-rtx 1.7.0.1, installed is 1.7.1.116"),
        ({}, {"version": "1.8.0.1"}, "was built by tensorrt-rtx 1.7.1.116, installed is 1.8.0.1"),
        ({}, {"gpu": Gpu("NVIDIA T4", (7, 5), "13.0")}, "is for compute capability 8.0 and newer"),
        ({"gpu": "7.5, 8.6"}, {}, "is for 7.5, 8.6, this GPU is NVIDIA L4, compute capability 8.9"),
        ({"precision": "fp8"}, {"gpu": Gpu("NVIDIA A10", (8, 6), "13.0")}, "fp8 needs compute capability 8.9"),
        ({"precision": "bf16", "gpu": "7.5"}, {"gpu": Gpu("NVIDIA T4", (7, 5), "13.0")}, "bf16 needs"),
        ({"profiles": (SMALL,)}, {"target": (1, 100, 90)}, "covers 1x16x16 to 1x96x96, best at 1x80x80, not 1x100x90"),
        ({"driver": "13.1"}, {}, "was built with a driver for CUDA 13.1, this one is for 13.0"),
    ],
)
def test_a_plan_that_does_not_fit_is_passed_over_with_the_reason(
    bundle: Bundle, changes: dict[str, object], wanted: dict[str, object], reason: str
) -> None:
    plan = store(bundle_folder(bundle), key_of(bundle, **changes), DATA)
    found = search(bundle, **wanted)  # type: ignore[arg-type]
    assert found.plan is None
    assert reason in found.passed_over[plan.path.name]


@pytest.mark.parametrize(
    ("place", "gpu", "fits"),
    [
        (GPU.label, GPU, True),
        (GPU.label, replace(GPU, name="NVIDIA L40"), False),
        (GPU.label, replace(GPU, driver="13.2"), True),
        (GPU.label, replace(GPU, driver="12.9"), False),
        (AMPERE_PLUS, Gpu("NVIDIA H200", (9, 0), "13.0"), True),
        (AMPERE_PLUS, Gpu("NVIDIA T4", (7, 5), "13.0"), False),
        ("8.6, 8.9", GPU, True),
        ("8.6, 12.0", GPU, False),
        (ANY_GPU, Gpu("NVIDIA RTX 5090", (12, 0), "13.0"), True),
    ],
)
def test_where_a_plan_runs(bundle: Bundle, place: str, gpu: Gpu, fits: bool) -> None:
    reason = runs_on(key_of(bundle, engine="tensorrt", gpu=place, driver="13.0"), gpu)
    assert (reason == "") is fits


@pytest.mark.parametrize(
    ("built", "installed", "fits"),
    [
        ("10.16.1.11", "10.16.1.11", True),
        ("10.16.1.11", "11.4.0.106", True),
        ("11.4.0.106", "10.16.1.11", False),
        ("9.9.0", "11.0.0", False),
    ],
)
def test_newer_versions_load_only_what_was_built_for_it(bundle: Bundle, built: str, installed: str, fits: bool) -> None:
    store(bundle_folder(bundle), key_of(bundle, engine_version=built, settings=("version-compatible",)), DATA)
    assert (search(bundle, version=installed).plan is not None) is fits


def test_the_sdks_kernels_come_first_then_the_bundle_then_the_tuning(bundle: Bundle) -> None:
    def take(*changes: dict[str, object], target: Size | None = None) -> EngineKey:
        for change in changes:
            store(bundle_folder(bundle), key_of(bundle, **change), DATA)
        found = search(bundle, target=target)
        assert found.plan is not None
        assert all(f"{found.plan.path.name} is preferred" == reason for reason in found.passed_over.values())
        return found.plan.key

    store(cache_folder(bundle), key_of(bundle, settings=("tf32",)), DATA)
    assert take().settings == ("tf32",), "there is only the cache"
    assert take({"profiles": (SMALL,)}).profiles == (SMALL,)
    assert take({"profiles": (LARGE,)}).profiles == (LARGE,), "covers more"
    assert take(target=(1, 80, 80)).profiles == (SMALL,)
    assert take({"integration": "plugin-fold"}).integration == "plugin-fold"
    assert take({"integration": "plugin-mix"}).integration == "plugin-mix"


def test_a_damaged_plan_gives_way_to_the_next(bundle: Bundle) -> None:
    first = store(bundle_folder(bundle), key_of(bundle), DATA)
    second = store(cache_folder(bundle), key_of(bundle), DATA)
    damage_byte(first)
    assert search(bundle).plan == second


def test_the_cache_lies_in_the_users_cache_folder(
    bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_folder(bundle) == cache / "minet-sdk" / "engines" / bundle.sha256
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(bundle) == tmp_path / ".cache" / "minet-sdk" / "engines" / bundle.sha256


def test_old_gpus_lack_precisions() -> None:
    assert lacks_precision("fp8", [(8, 9), (8, 0), (7, 5)]) == "fp8 needs compute capability 8.9 or newer, not 7.5, 8.0"
    assert not lacks_precision("fp8", [(8, 9), (9, 0), (12, 0)])
    assert lacks_precision("bf16", [(7, 5)])
    assert not lacks_precision("bf16", [])
    for precision in ("fp32", "fp16", "int8"):
        assert not lacks_precision(precision, [(7, 5)])  # type: ignore[arg-type]
