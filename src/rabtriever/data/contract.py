"""The data contract: what must hold between the files of a data set, as Great Expectations suites.

Owns the list of expectations and the text of the failures. Faults inside one file (broken lines, repeated ids) are
found by the readers of `beir_io`, which name the line.

A query text in two splits is an error. A query that is trained on and tested on makes every figure too good, and only
the owner of the data knows which copy belongs where. So nothing is dropped in silence. Two texts count as one when they
differ only in case, white space and the punctuation of sentences (`statistics.normalised`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rabtriever.data.beir_io import DataContractError, Dataset
from rabtriever.data.look_alikes import LookAlikes
from rabtriever.data.statistics import count_positives, describe, is_grade, normalised

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS_SHOWN = 10
_MAX_TEXT_SHOWN = 80  # characters


@dataclass(frozen=True)
class Expectation:
    """One line of the contract.

    Attributes:
        plain: What must hold, in plain words; also the name of the expectation in reports.
        table: The table of `tables_of` whose rows it is about.
        kind: Class name in great_expectations.expectations.
        column: The column it looks at.
        advice: What to do when it fails.
        settings: Further arguments of the class.
    """

    plain: str
    table: str
    kind: str
    column: str
    advice: str
    settings: Mapping[str, Any] = field(default_factory=dict)


_TRUE = {"value_set": [True]}
_AT_LEAST_ONE = {"min_value": 1}
CONTRACT = (
    Expectation(
        "no file is empty", "files", "ExpectColumnValuesToBeBetween", "rows", "add the missing lines", _AT_LEAST_ONE
    ),
    Expectation(
        "each split has a judgement that a document is relevant (grade 1 or more)",
        "splits",
        "ExpectColumnValuesToBeBetween",
        "positives",
        "add judgements; without a qrels/dev.tsv the dev split is cut from train",
        _AT_LEAST_ONE,
    ),
    Expectation(
        "document ids are unique", "documents", "ExpectColumnValuesToBeUnique", "doc_id", "rename one of the documents"
    ),
    Expectation(
        "document ids are not null", "documents", "ExpectColumnValuesToNotBeNull", "doc_id", "give the document an id"
    ),
    Expectation(
        "no document is blank",
        "documents",
        "ExpectColumnValuesToMatchRegex",
        "contents",
        "give the document a text or remove it",
        {"regex": r"\S"},
    ),
    Expectation(
        "no query is blank",
        "queries",
        "ExpectColumnValuesToMatchRegex",
        "text",
        "give the query a text or remove it and its judgements",
        {"regex": r"\S"},
    ),
    Expectation(
        "every judged query is in queries.jsonl",
        "judgements",
        "ExpectColumnValuesToBeInSet",
        "query_known",
        "correct the id, add the query, or remove the judgement",
        _TRUE,
    ),
    Expectation(
        "every judged document is in corpus.jsonl",
        "judgements",
        "ExpectColumnValuesToBeInSet",
        "document_known",
        "correct the id, add the document, or remove the judgement",
        _TRUE,
    ),
    Expectation(
        "every grade is an integer of 0 or more",
        "judgements",
        "ExpectColumnValuesToBeInSet",
        "grade_valid",
        "write 0 for judged not relevant, 1, 2, ... for relevant",
        _TRUE,
    ),
    Expectation(
        "no query id is in two splits",
        "judged_queries",
        "ExpectColumnValuesToBeUnique",
        "query_id",
        "keep the query in one split; a test query must not be a training query",
    ),
    Expectation(
        "no query text is in two splits (case, white space and the punctuation of sentences aside)",
        "query_texts",
        "ExpectColumnValuesToBeUnique",
        "normalised",
        "keep the text in one split; a test query must not be a training query",
    ),
    Expectation(
        "every train query has a relevant document (grade 1 or more)",
        "train_queries",
        "ExpectColumnValuesToBeBetween",
        "positives",
        "add a judgement with grade 1 or more, or remove the query's judgements from qrels/train.tsv",
        _AT_LEAST_ONE,
    ),
)
# Columns that tell a reader which row is meant, by table.
_SHOWN = {
    "files": ["file"],
    "splits": ["file"],
    "documents": ["file", "doc_id"],
    "queries": ["file", "query_id"],
    "judgements": ["file", "query_id", "doc_id", "grade"],
    "judged_queries": ["file", "query_id"],
    "query_texts": ["file", "query_id", "text"],
    "train_queries": ["file", "query_id"],
}


def check_dataset(dataset: Dataset) -> dict[str, Any]:
    """The report on a data set that meets the contract, as JSON-ready values.

    Args:
        dataset: The data set; its dev split may be missing.

    Returns:
        The sizes of `statistics.describe`, and "expectations": per line of the contract "expectation" (what must
        hold), "success" (True) and "rows" (how many were looked at).

    Raises:
        DataContractError: Listing each failed expectation with its first offending rows and what to do.
    """
    tables = tables_of(dataset)
    results = validate(tables)
    failed = [result for result in results if not result["success"]]
    if failed:
        raise DataContractError(_failure_text(failed, len(results), dataset))
    kept = ("expectation", "success", "rows")
    return {**describe(dataset), "expectations": [{key: result[key] for key in kept} for result in results]}


def tables_of(dataset: Dataset) -> dict[str, pd.DataFrame]:
    """The data set as data frames by name: the tables that the expectations of CONTRACT name, one row per item."""
    import pandas as pd

    judgements, judged = [], []
    for split, qrels in dataset.qrels.items():
        file = f"qrels/{split}.tsv"
        for query_id, grades in qrels.items():
            known = query_id in dataset.queries
            judgements += [
                (file, query_id, doc_id, grade, known, doc_id in dataset.corpus, is_grade(grade))
                for doc_id, grade in grades.items()
            ]
            text = dataset.queries.get(query_id)
            positives = sum(is_grade(grade) and grade > 0 for grade in grades.values())
            judged.append((file, query_id, text, None if text is None else normalised(text), positives))
    columns = ["file", "query_id", "doc_id", "grade", "query_known", "document_known", "grade_valid"]
    judged_queries = pd.DataFrame(judged, columns=["file", "query_id", "text", "normalised", "positives"])
    splits = [(f"qrels/{split}.tsv", count_positives(qrels.values())) for split, qrels in dataset.qrels.items()]
    sizes = [("corpus.jsonl", len(dataset.corpus)), ("queries.jsonl", len(dataset.queries))]
    documents = [("corpus.jsonl", document.doc_id, document.contents) for document in dataset.corpus.values()]
    queries = [("queries.jsonl", query_id, text) for query_id, text in dataset.queries.items()]
    texts = judged_queries.drop_duplicates(["file", "normalised"])
    return {
        "files": pd.DataFrame(sizes, columns=["file", "rows"]),
        "splits": pd.DataFrame(splits, columns=["file", "positives"]),
        "documents": pd.DataFrame(documents, columns=["file", "doc_id", "contents"]),
        "queries": pd.DataFrame(queries, columns=["file", "query_id", "text"]),
        "judgements": pd.DataFrame(judgements, columns=columns).astype({"grade": object}),
        # Sorted, so that the copies of a query stand together among the rows shown.
        "judged_queries": judged_queries.sort_values(["query_id", "file"], ignore_index=True),
        "query_texts": texts.sort_values(["normalised", "file"], ignore_index=True),
        "train_queries": judged_queries[judged_queries["file"] == "qrels/train.tsv"].reset_index(drop=True),
    }


def validate(tables: Mapping[str, pd.DataFrame], site: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """What came of each expectation, in the order of CONTRACT.

    The keys are "expectation", "column", "advice", "success", "rows", "unexpected" and "examples".

    Args:
        tables: The data frames, by name.
        site: Great Expectations' settings of a Data Docs site to build as well.

    Raises:
        RuntimeError: If an expectation could not be evaluated.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    source = context.data_sources.add_pandas("data_set")
    outcomes: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=_expectations(name)))
        definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
        validation = context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": table},
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": _SHOWN[name],
                "return_unexpected_index_query": False,
            },
        )
        outcomes |= {str(found.expectation_config.meta["plain"]): _outcome(found) for found in validation.results}
    if site is not None:
        context.add_data_docs_site("contract", dict(site))
        context.build_data_docs(site_names=["contract"])
    return [
        {"expectation": one.plain, "column": one.column, "advice": one.advice, **outcomes[one.plain]}
        for one in CONTRACT
    ]


def _expectations(table: str) -> list[Any]:
    import great_expectations.expectations as library

    return [
        getattr(library, one.kind)(column=one.column, notes=one.plain, meta={"plain": one.plain}, **one.settings)
        for one in CONTRACT
        if one.table == table
    ]


def _outcome(found: Any) -> dict[str, Any]:
    if not found.result:  # Great Expectations reports an expectation that crashed as a failed one
        raise RuntimeError(
            f"expectation {found.expectation_config.type} could not be evaluated: {found.exception_info}"
        )
    return {
        "success": bool(found.success),
        "rows": int(found.result["element_count"]),
        "unexpected": int(found.result["unexpected_count"]),
        "examples": found.result.get("unexpected_index_list", [])[:MAX_ROWS_SHOWN],
    }


def _failure_text(failed: list[dict[str, Any]], total: int, dataset: Dataset) -> str:
    lines = [f"the data break {len(failed)} of {total} expectations of the data contract"]
    for result in failed:
        shown = result["examples"]
        more = f", the first {len(shown)}" if len(shown) < result["unexpected"] else ""
        lines.append(f"- expected: {result['expectation']}; found {result['unexpected']} that break it{more}:")
        alike = _look_alikes(result["column"], dataset)
        for row in shown:
            lines.append(f"    {_row_text(row)}")
            lines += [f"      {file} has {told}" for name, (file, ids) in alike.items() if (told := ids.of(row[name]))]
        lines.append(f"  {result['advice']}")
    return "\n".join(lines)


def _look_alikes(column: str, dataset: Dataset) -> dict[str, tuple[str, LookAlikes]]:
    """Where an expectation is about unknown ids: by their column, the file that lacks them and the ids it has."""
    if column == "query_known":
        return {"query_id": ("queries.jsonl", LookAlikes(dataset.queries))}
    if column == "document_known":
        return {"doc_id": ("corpus.jsonl", LookAlikes(dataset.corpus))}
    return {}


def _row_text(row: Mapping[str, Any]) -> str:
    """An offending row as text: its file, then its ids and values."""
    names = {"query_id": "query", "doc_id": "document", "grade": "grade", "text": "text"}
    shown = [f"{plain} {_shortened(row[name])!r}" for name, plain in names.items() if name in row]
    return f"{row['file']}: {', '.join(shown)}" if shown else str(row["file"])


def _shortened(value: Any) -> Any:
    return value[:_MAX_TEXT_SHOWN] + "..." if isinstance(value, str) and len(value) > _MAX_TEXT_SHOWN else value
