"""Dockerfile and compose.yaml name paths, extras, commands, options and ports that there are; no daemon is needed."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from rabtriever.cli.parser import build_parser
from rabtriever.cli.project import TEMPLATE
from rabtriever.server.settings import ServeSettings
from tests.closure import ROOT
from tests.docs.shell import commands, fault

LINES = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text()).splitlines()
INSTRUCTIONS = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in LINES) if word.isupper()]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
PORTS = {"server": ServeSettings().port, "mlflow": 5000, "prefect": 4200}  # those that the guides name


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, with those of the stage that it starts from."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in INSTRUCTIONS:
        if word == "FROM":
            start, _, name = rest.partition(" AS ")
            found[name] = list(found.get(start, []))
        elif name:
            found[name].append((word, rest))
    return found


STAGES = stages()


def last(stage: str, word: str) -> str:
    return [rest for one, rest in STAGES[stage] if one == word][-1]


def in_image(path: str) -> bool:
    """Whether .dockerignore lets a path of the repository into a build; the last pattern that fits decides."""
    kept = True
    for pattern in (line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"):
        name = pattern.removeprefix("!")
        parts = [str(parent) for parent in (Path(path), *Path(path).parents)]
        if any(fnmatch(part, name) or (name[:3] == "**/" and fnmatch(Path(part).name, name[3:])) for part in parts):
            kept = pattern.startswith("!")
    return kept


def test_an_image_has_what_it_is_built_from():
    """A build fails at COPY, or the worker's project lacks a file."""
    copied = {
        path for word, rest in INSTRUCTIONS if word == "COPY" and "--from" not in rest for path in rest.split()[:-1]
    }
    needed = {*copied, *TEMPLATE, "setup.py", "README.md", "LICENSE", "src/rabtriever/__init__.py"} - {"."}
    assert {path for path in needed if not (ROOT / path).exists()} == set()
    assert {path for path in needed if not in_image(path)} == set()


@pytest.mark.parametrize(
    "path",
    ["mlruns/mlflow.db", ".git/config", ".venv/bin/python", "tokens", ".env", "data/mine", "src/a/__pycache__/b"],
)
def test_an_image_has_nothing_else(path: str):
    """Whoever gets the image gets tokens, the registry or somebody's data with it."""
    assert not in_image(path)


def test_extras_are_known():
    """uv installs nothing for an extra that was renamed, and says so in a line that nobody reads."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"--extra (\w+)", "\n".join(LINES))
    assert set(named) == {"serve", "train", "ops", "irds"} and set(named) <= set(extras)


def test_python_is_supported():
    """A base image of a Python that the package refuses."""
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    version = re.search(r"ARG PYTHON=3\.(\d+)", "\n".join(LINES))
    low, high = re.findall(r"3\.(\d+)", supported)
    assert version is not None and int(low) <= int(version[1]) < int(high)


@pytest.mark.parametrize("stage", ["serve", "pipeline"])
def test_nothing_runs_as_root(stage: str):
    """A fault of a parser gives a stranger the machine."""
    assert last(stage, "USER") == "rabtriever"
    assert "useradd" in "\n".join(rest for word, rest in STAGES[stage] if word == "RUN")
    assert json.loads(last(stage, "CMD"))


def test_stages_exist():
    """A target, or a folder of another stage, that is gone."""
    sources = re.findall(r"COPY --from=(\S+)", "\n".join(LINES))
    targets = {service["build"]["target"] for service in SERVICES.values()}
    assert {*sources, *targets} <= set(STAGES) and targets == {"serve", "pipeline"}


def test_the_server_is_asked_where_it_listens():
    """A container that works is restarted for ever, or one that does not work is called healthy."""
    words = json.loads(last("serve", "CMD"))
    parsed = build_parser().parse_args(words[1:])
    assert words[0] == "rabtriever" and parsed.host == "0.0.0.0"
    (asked,) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", last("serve", "HEALTHCHECK"))
    assert (int(asked[0]), asked[1]) == (parsed.port, "/readyz")
    assert parsed.port == int(last("serve", "EXPOSE")) == PORTS["server"]
    assert last("serve", "WORKDIR") + "/mlruns" == last("serve", "VOLUME")


def words_of(service: str) -> list[str]:
    """The command of a service, or that of its image."""
    own = SERVICES[service].get("command")
    return own or json.loads(last(SERVICES[service]["build"]["target"], "CMD"))


def programs(service: str) -> list[list[str]]:
    """The programs of a service, with their words; a shell's conditions are left out."""
    words = words_of(service)
    if words[:2] != ["sh", "-c"]:
        return [words]
    shown = re.sub(r">/dev/null 2>&1|\[ -f [\w.]+ \]|\bexec\b|^set -e$", "", words[2], flags=re.MULTILINE)
    return commands(shown)


@pytest.mark.parametrize("service", SERVICES)
def test_programs_and_options_are_known(service: str):
    """A service ends at once, and is started again for ever."""
    found = programs(service)
    assert found
    for words in found:
        assert words[0] in ("rabtriever", "mlflow", "prefect", "python"), words
        assert fault(words) is None, f"{shlex.join(words)}: {fault(words)}"


def test_mlflow_has_the_options():
    """An option of MLflow's server that the installed release does not have."""
    from mlflow.cli import cli

    known = {option for parameter in cli.commands["server"].params for option in parameter.opts}
    given = {word.partition("=")[0] for word in words_of("mlflow") if word.startswith("--")}
    assert given <= known
    hosts = dict(word.partition("=")[::2] for word in words_of("mlflow"))["--allowed-hosts"].split(",")
    assert f"mlflow:{PORTS['mlflow']}" in hosts, "as the other services call it"


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_this_machines_alone(service: str):
    """A registry without logins is open to the network."""
    ports = SERVICES[service].get("ports", [])
    assert ports == ([f"127.0.0.1:{PORTS[service]}:{PORTS[service]}"] if service in PORTS else [])
    if service in ("mlflow", "prefect"):
        listening = int(re.search(r"--port=(\d+)", " ".join(words_of(service)))[1])
        (asked,) = re.findall(r"127\.0\.0\.1:(\d+)/", SERVICES[service]["healthcheck"]["test"][-1])
        assert listening == int(asked) == PORTS[service]


@pytest.mark.parametrize("service", SERVICES)
def test_services_find_each_other(service: str):
    """An address of a service that has another name or port, or a wait for one that is never healthy."""
    told = SERVICES[service]
    for address in (value for value in told.get("environment", {}).values() if str(value).startswith("http")):
        name, port = re.match(r"http://(\w+):(\d+)", address).groups()
        assert PORTS[name] == int(port) and name in told["depends_on"]
    for name, how in told.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"} and "healthcheck" in SERVICES[name]


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_kept_is_on_a_volume(service: str):
    """The registry, the schedules or added documents end with their container."""
    (mount,) = SERVICES[service]["volumes"]
    volume, path = mount.split(":")
    assert volume in COMPOSE["volumes"]
    written = re.findall(r"(?:sqlite:///|=)(/project\S*)", " ".join(words_of(service)))
    written += [
        value for value in SERVICES[service].get("environment", {}).values() if str(value).startswith("/project")
    ]
    assert all(Path(place).is_relative_to(path) for place in written)
    assert Path(path).is_relative_to(last(SERVICES[service]["build"]["target"], "WORKDIR"))


def test_variables_are_read_by_something():
    """A variable that was renamed is set in vain."""
    code = "\n".join(path.read_text() for room in ("src", "flows") for path in (ROOT / room).rglob("*.py"))
    code += (ROOT / "prefect.yaml").read_text()
    theirs = {"PREFECT_HOME", "PREFECT_SERVER_ANALYTICS_ENABLED"}
    for service in SERVICES.values():
        for name in service.get("environment", {}):
            assert name in theirs or name in code, name


def test_the_worker_has_time_to_stop():
    """The runtime kills a stage that is putting its last outputs back."""
    from flows.worker import _GRACE_SECONDS

    assert SERVICES["worker"]["stop_grace_period"] == "2m" and _GRACE_SECONDS < 120
