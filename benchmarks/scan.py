"""Prints how long a flat scan of 100,000 documents takes: our fused loop, faiss and blocked torch operations.

`python benchmarks/scan.py` takes half a minute on one idle thread; `--documents 20000 --repeats 3` is a short try. All
three are timed in turn and the best time of each counts, so that a busy machine slows none of them alone. Compare the
ratios: times are of one machine.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when the libraries below are imported

import argparse
import time
from collections.abc import Callable

import faiss
import torch

from rabtriever.models.predictor import FoldedDocuments, FoldedQueries, folded_scores
from rabtriever.search.scan import scan

WIDTH = 256
QUERIES = (1, 16)


def main() -> None:
    """One table: a row for each way to scan, milliseconds and the ratio to the fused loop by number of queries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=15, help="the best time of so many counts")
    arguments = parser.parse_args()
    size = arguments.documents
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    torch.manual_seed(0)
    documents = FoldedDocuments(torch.randn(size, WIDTH), torch.empty(size, 0), torch.randn(size))
    index = faiss.IndexFlatIP(WIDTH)
    index.add(documents.additive.numpy())
    found = {count: _best(_ways(count, documents, index), arguments.repeats) for count in QUERIES}
    print(f"{size:,} documents of {WIDTH} float32, one thread, best of {arguments.repeats}; ratios to the fused scan\n")
    print("| |" + "".join(f" ms, {count} {'query' if count == 1 else 'queries'} | ratio |" for count in QUERIES))
    print("|---|" + "---:|---:|" * len(QUERIES))
    for name in found[QUERIES[0]]:
        cells = [(times[name], times[name] / times["fused scan"]) for times in found.values()]
        print(f"| {name} |" + "".join(f" {1000 * seconds:.1f} | {ratio:.2f} |" for seconds, ratio in cells))


def _ways(count: int, documents: FoldedDocuments, index: faiss.IndexFlatIP) -> dict[str, Callable[[], object]]:
    """The calls that are timed; faiss also finds the ten best, which it cannot leave out."""
    queries = FoldedQueries(torch.randn(count, WIDTH), torch.randn(WIDTH), torch.empty(count, 0), torch.randn(count))
    vectors = queries.additive.numpy()
    return {
        "fused scan": lambda: scan(queries, documents),
        "faiss IndexFlatIP": lambda: index.search(vectors, 10),
        "blocked torch": lambda: folded_scores(queries, documents),
    }


def _best(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Shortest seconds of each call, taken in turn after a first call of each."""
    for call in ways.values():
        call()
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, call in ways.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
