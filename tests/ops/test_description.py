"""What a version shows in the registry: figures and card, in a text that every database keeps."""

from __future__ import annotations

from pathlib import Path

from rabtriever.ops import registry, tracking
from rabtriever.ops.description import LONGEST, version_description
from tests.toy import dataset, per_query, write_retriever

SYSTEMS = {"student": {"nDCG@10": 81.25, "R@10": 95.0, "ms_per_query": 1.234}, "teacher": {"ms_per_query": None}}
EVALUATION = {"dataset": "toy`s\nset", "num_queries": 3, "num_documents": 9, "systems": SYSTEMS}
CARD = "---\nlibrary_name: rabtriever\n---\n\n# Retriever over 9 documents\n\nIt answers.\n"
TITLE = "`toy's set`, test: 3 queries, 9 documents (metrics in per cent)"


def test_figures_and_card(tmp_path: Path) -> None:
    """Prevents a version that says nothing of itself, or shows its front matter as text."""
    (tmp_path / "MODEL_CARD.md").write_text(CARD)
    text = version_description(tmp_path, EVALUATION)
    lines = text.splitlines()
    assert lines[:3] == ["## Evaluation", "", TITLE]
    assert "| student | 81.2 | – | 95.0 | – | – | 1.23 |" in lines and "| teacher | – | – | – | – | – | – |" in lines
    assert text.endswith("\n\n# Retriever over 9 documents\n\nIt answers.") and "library_name" not in text


def test_a_long_card_is_cut_at_a_line(tmp_path: Path) -> None:
    """Prevents a registration that fails because MLflow's database keeps 5,000 characters."""
    (tmp_path / "MODEL_CARD.md").write_text(CARD + "A line of the card.\n" * 400)
    text = version_description(tmp_path, EVALUATION)
    assert len(text) <= LONGEST and text.endswith("A line of the card.\n\nThe rest is in MODEL_CARD.md.")


def test_a_version_is_registered_with_its_description(store: Path) -> None:
    """Prevents a description that is made and never set; a folder of an earlier release has no card."""
    data = dataset()
    write_retriever("models/retriever", data, 0.5)
    with tracking.stage_run("register", {}) as run:
        version = registry.register(run, "models/retriever", data.hash, EVALUATION, per_query(data, 0.5))
    found = tracking.client().get_model_version(registry.MODEL, version.version).description
    assert found == version_description(Path("models/retriever"), EVALUATION) and found.endswith(" |")
