"""`rabtriever models` and `rollback`."""

from __future__ import annotations

from pathlib import Path

import pytest

from rabtriever.cli import main
from rabtriever.ops import registry
from tests.cli.registered import promoted, registered


def test_versions_are_listed_and_shown(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a champion that only MLflow's pages tell."""
    promoted(0.5)
    registered(0.6)
    assert main(["models", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["2", "60.00"], ["1", "champion"]]
    assert main(["models", "show", "champion"]) == 0
    shown = capsys.readouterr().out
    assert "student.ndcg_10          50.00" in shown and str(registry.local_folder(registry.get("1"))) in shown
    assert main(["models", "show", "7"]) == 1
    assert "the registry has no '7'" in capsys.readouterr().err


def test_compare_shows_the_paired_difference(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents two means side by side without a word on chance."""
    registered(0.5)
    registered(0.75)
    assert main(["models", "compare", "1", "2"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("nDCG@10"))
    first, second, difference, low, _, high = line.split()[1:]
    assert (first, second, difference) == ("50.00", "75.00", "+25.00")
    assert float(low) < 25 < float(high)


def test_promote_asks_the_version_first(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents putting a version into service that cannot answer."""
    promoted(0.5)
    second = registered(0.6)
    assert main(["models", "promote", "2"]) == 0
    assert "champion is version 2 now; version 1 is previous" in capsys.readouterr().out
    assert main(["models", "promote", "2"]) == 1
    assert "version 2 is the champion already" in capsys.readouterr().err
    assert main(["models", "promote", "1"]) == 0
    (registry.local_folder(second) / "best.json").write_text("{}")
    assert main(["models", "promote", "2"]) == 1
    assert "best.json" in capsys.readouterr().err and registry.champion().version == "1"


def test_rollback_names_both_versions(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a rollback nobody can see the effect of."""
    promoted(0.5)
    assert main(["rollback"]) == 1
    assert "two promotions" in capsys.readouterr().err
    promoted(0.6)
    assert main(["rollback"]) == 0
    assert "champion is version 1 now; version 2 is previous" in capsys.readouterr().out
    assert main(["rollback", "--to", "7"]) == main(["rollback", "--to", "1"]) == 1
    error = capsys.readouterr().err
    assert "no version of 'rabtriever' is '7' to roll back to; name one" in error and "version 1 is in service" in error
    assert main(["rollback", "--to", "2"]) == 0
