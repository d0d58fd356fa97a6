"""params.yaml as `--data` changes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rabtriever.ops import pipeline_settings


def test_bad_data_folder_leaves_settings_alone(project: Path) -> None:
    """Prevents a params.yaml that points at data nobody can use."""
    before = Path("params.yaml").read_text()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pipeline_settings.adopt_source("nowhere")
    bad = Path("bad/qrels")
    bad.mkdir(parents=True)
    (bad.parent / "corpus.jsonl").write_text('{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}\n')
    (bad.parent / "queries.jsonl").write_text('{"_id": "q1", "text": "x"}\n')
    for split in ("train", "test"):
        (bad / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    with pytest.raises(ValueError, match=r"corpus\.jsonl:2.*d1"):
        pipeline_settings.adopt_source("bad")
    with pytest.raises(ValueError, match="data/prepared is data/prepared, which the pipeline or DVC writes"):
        pipeline_settings.adopt_source("data/prepared")
    assert Path("params.yaml").read_text() == before
