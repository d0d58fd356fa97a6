"""The strict settings loader, and rewriting one value."""

import dataclasses
from typing import Literal

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rabtriever.core.settings import ParamsError, bounded, check_sections, load_params, save_param


@dataclasses.dataclass(frozen=True)
class Settings:
    source: str
    rate: float = bounded(gt=0, le=0.5)
    steps: int = bounded(ge=1, lt=100)
    shuffle: bool
    sizes: list[int] = bounded(ge=2)
    words: list[str]
    adapter: Literal["none", "lora"]
    revision: str | None
    limit: int | None = bounded(ge=1)


GOOD = {
    "source": "data/x",
    "rate": "1e-4",
    "steps": "99",
    "shuffle": "true",
    "sizes": "[2, 3]",
    "words": "[yes, no, off]",
    "adapter": "none",
    "revision": "null",
    "limit": "",
}


def _file(tmp_path, section="stage", **changes):
    values = {**GOOD, **changes}
    lines = [f"  {key}: {value}" for key, value in values.items() if value is not None]
    (tmp_path / "params.yaml").write_text("\n".join([f"{section}:", *lines]) + "\n")
    return tmp_path / "params.yaml"


def test_good_section(tmp_path):
    """1e-4 is read as a word and `yes` as a truth value, other than DVC reads them."""
    loaded = load_params(Settings, "stage", _file(tmp_path))
    expected = Settings("data/x", 0.0001, 99, True, [2, 3], ["yes", "no", "off"], "none", None, None)
    assert loaded == expected
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.steps = 3


def test_integer_is_accepted_as_number(tmp_path):
    """`rate: 1` is refused, or stays an integer and makes another hash than 1.0."""

    @dataclasses.dataclass(frozen=True)
    class One:
        rate: float

    (tmp_path / "params.yaml").write_text("stage:\n  rate: 1\n")
    assert isinstance(load_params(One, "stage", tmp_path / "params.yaml").rate, float)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"soruce": "x"}, "unknown key stage.soruce, did you mean 'source'?"),
        ({"qqqq": "x"}, "unknown key stage.qqqq (valid: adapter, limit, "),
        ({"steps": None}, "stage.steps is missing; add it (an integer at least 1 and less than 100)"),
        ({"source": "3"}, "stage.source is 3, expected a string"),
        ({"source": ""}, "stage.source is None, expected a string"),
        ({"steps": "1.5"}, "stage.steps is 1.5, expected an integer"),
        ({"steps": "true"}, "stage.steps is True, expected an integer"),
        ({"steps": "many"}, "stage.steps is 'many', expected an integer"),
        ({"steps": "0"}, "stage.steps is 0, expected an integer at least 1 and less than 100"),
        ({"steps": "100"}, "stage.steps is 100, expected"),
        ({"rate": "0"}, "stage.rate is 0, expected a number more than 0 and at most 0.5"),
        ({"rate": "0.51"}, "stage.rate is 0.51, expected"),
        ({"rate": ".nan"}, "stage.rate is nan, expected a number"),
        ({"rate": "true"}, "stage.rate is True, expected a number"),
        ({"shuffle": "1"}, "stage.shuffle is 1, expected true or false"),
        ({"shuffle": "yes"}, "stage.shuffle is 'yes', expected true or false"),
        ({"sizes": "2"}, "stage.sizes is 2, expected a list, each item an integer at least 2"),
        ({"sizes": "[2, 1]"}, "stage.sizes[1] is 1, expected an integer at least 2"),
        ({"words": "[a, 1]"}, "stage.words[1] is 1, expected a string"),
        ({"adapter": "lorra"}, "stage.adapter is 'lorra', expected one of none, lora"),
        ({"adapter": "null"}, "stage.adapter is None, expected one of none, lora"),
        ({"revision": "3"}, "stage.revision is 3, expected a string or null"),
        ({"limit": "0"}, "stage.limit is 0, expected an integer at least 1 or null"),
    ],
)
def test_fault_is_named(tmp_path, changes, words):
    """A misspelt or wrong setting is ignored, and the run answers another question."""
    path = _file(tmp_path, **changes)
    with pytest.raises(ParamsError) as caught:
        load_params(Settings, "stage", path)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "found NoneType, expected one section per stage"),
        ("- 1\n", "found list"),
        ("stage: 3\n", "stage is 3, expected a mapping"),
        ("stagge: {}\n", "no section 'stage', did you mean 'stagge'?"),
        ("stage: {source: x\n", "not valid YAML"),
        ("stage: {source: x, source: y}\n", 'duplicate key "source"'),
        ("stage: {}\nstage: {}\n", 'duplicate key "stage"'),
    ],
)
def test_broken_file_is_named(tmp_path, content, words):
    """The second of two equal keys wins in silence; a broken file ends in a traceback."""
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(ParamsError) as caught:
        load_params(Settings, "stage", tmp_path / "params.yaml")
    assert words in str(caught.value)


def test_missing_file_is_named(tmp_path):
    """A command run in the wrong folder does not say so."""
    with pytest.raises(FileNotFoundError, match="params.yaml; expected the settings"):
        load_params(Settings, "stage", tmp_path / "params.yaml")


def test_unknown_section_is_named(tmp_path):
    """A misspelt section is never read."""
    path = _file(tmp_path, section="stagee")
    check_sections(path, ["stagee", "other"])
    with pytest.raises(ParamsError, match="unknown section 'stagee', did you mean 'stage'"):
        check_sections(path, ["stage", "other"])


COMMENTED = """\
# What a human may change.
prepare:  # first stage
  source:   data/household    # a folder
  limit:
  "text": 'it''s'  # quoted
other: {source: a, rates: [1, 2]}
"""


def test_saving_keeps_everything_else(tmp_path):
    """Changing the data set wipes the comments of the file, or changes another section."""
    path = tmp_path / "params.yaml"
    path.write_text(COMMENTED)
    save_param(path, "prepare.source", "../elsewhere/esconv")
    assert path.read_text() == COMMENTED.replace("data/household", "../elsewhere/esconv")
    save_param(path, "prepare.limit", 3)
    save_param(path, "prepare.text", "plain")
    save_param(path, "other.source", True)
    changed = COMMENTED.replace("data/household", "../elsewhere/esconv").replace("limit:", "limit: 3")
    assert path.read_text() == changed.replace("'it''s'", "plain").replace("source: a", "source: true")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co"]), max_size=20),
        st.sampled_from(
            ["yes", "off", "null", "1e-4", "12", "0x1f", "1:30", "a: b", "- a", "# a", "'", "~", "2026-01-01"]
        ),
    ),
    key=st.sampled_from(["prepare.source", "prepare.limit", "prepare.text", "other.source"]),
)
def test_saved_value_is_read_back(tmp_path, value, key):
    """A folder whose name looks like a number or a comment is saved as something else."""
    path = tmp_path / "params.yaml"
    path.write_text(COMMENTED)
    save_param(path, key, value)
    section, name = key.split(".")
    hint = type(None) if value is None else type(value)
    one = dataclasses.make_dataclass("One", [(name, hint if value is not None else str | None)], frozen=True)
    others = {n: s for n, s in yaml.safe_load(path.read_text())[section].items() if n != name}
    assert others == {n: s for n, s in yaml.safe_load(COMMENTED)[section].items() if n != name}
    (tmp_path / "alone.yaml").write_text(f"{section}:\n" + _line(path.read_text(), name, section))
    assert getattr(load_params(one, section, tmp_path / "alone.yaml"), name) == value


def _line(text, name, section):
    """The line of `section` that sets `name`, in block style."""
    if section == "other":
        inner = next(line for line in text.splitlines() if line.startswith("other"))
        return "  " + inner.removeprefix("other: {").split(", rates")[0] + "\n"
    quoted = '"text"' if name == "text" else name
    return next(line for line in text.split("\n") if line.startswith(f"  {quoted}:")) + "\n"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("prepare.sorce", "no key prepare.sorce, did you mean 'source'?"),
        ("prepar.source", "no key prepar, did you mean 'prepare'?"),
        ("other.rates", "other.rates is a list or mapping"),
        ("prepare.source.x", "no key prepare.source.x"),
    ],
)
def test_saving_an_unknown_key_is_refused(tmp_path, key, words):
    """A misspelt key is added beside the right one, and the run uses the old value."""
    path = tmp_path / "params.yaml"
    path.write_text(COMMENTED)
    with pytest.raises(ParamsError) as caught:
        save_param(path, key, "x")
    assert words in str(caught.value) and path.read_text() == COMMENTED


def test_saving_nan_is_refused(tmp_path):
    """The file can no longer be read."""
    path = tmp_path / "params.yaml"
    path.write_text(COMMENTED)
    with pytest.raises(ValueError, match="JSON"):
        save_param(path, "prepare.source", float("nan"))
    assert path.read_text() == COMMENTED
