"""The compiled scan against the reference."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from rabtriever.models.predictor import FoldedDocuments, FoldedQueries, folded_scores
from rabtriever.search.scan import BLOCK, scan


def folded(num_queries: int, num_documents: int, hidden: int, products: int) -> tuple[FoldedQueries, FoldedDocuments]:
    """Random folded sides."""
    return (
        FoldedQueries(
            torch.randn(num_queries, hidden),
            torch.randn(hidden),
            torch.randn(num_queries, products),
            torch.randn(num_queries),
        ),
        FoldedDocuments(
            torch.randn(num_documents, hidden), torch.randn(num_documents, products), torch.randn(num_documents)
        ),
    )


@pytest.mark.parametrize("num_documents", [1, BLOCK - 1, BLOCK, BLOCK + 1, 1000])
@pytest.mark.parametrize("products", [0, 5])
def test_scan_equals_the_reference(num_documents, products):
    """The product ranks by other scores than training does, for example in the last, unfilled block."""
    queries, documents = folded(3, num_documents, 64, products)
    scores = scan(queries, documents)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, folded_scores(queries, documents).numpy(), rtol=0, atol=1e-4)


def test_scan_reads_strided_half_precision():
    """A transposed view or a float16 index is read as if it were contiguous float32."""
    queries, documents = folded(2, 70, 8, 4)
    strided = FoldedDocuments(
        documents.additive.T.contiguous().T.half(), documents.products[:, ::2].half(), documents.bias.half()
    )
    asked = queries._replace(products=queries.products[:, ::2])
    expected = folded_scores(asked, FoldedDocuments(*(part.float() for part in strided)))
    np.testing.assert_allclose(scan(asked, strided), expected.numpy(), rtol=0, atol=1e-5)


def test_scan_of_one_query_does_not_depend_on_the_others():
    """A query's ranking changes with the queries that happen to share its call."""
    queries, documents = folded(4, 200, 16, 4)
    alone = FoldedQueries(queries.additive[2:3], queries.weights, queries.products[2:3], queries.bias[2:3])
    assert np.array_equal(scan(alone, documents)[0], scan(queries, documents)[2])


def test_scan_keeps_to_torch_threads():
    """A scan takes all cores of a shared machine, and every later step of torch with it."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            scan(*folded(2, 100, 8, 2))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_requests_may_scan_at_once(layer):
    """A server answers in threads; where the system has no OpenMP, numba's own pool ends the process when two meet."""
    program = (
        "import concurrent.futures, numpy, torch\n"
        "from rabtriever.models.predictor import FoldedDocuments, FoldedQueries\n"
        "from rabtriever.search.scan import scan\n"
        "torch.set_num_threads(2)\n"
        "queries = FoldedQueries(torch.ones(4, 8), torch.ones(8), torch.ones(4, 2), torch.ones(4))\n"
        "documents = FoldedDocuments(torch.ones(50000, 8), torch.ones(50000, 2), torch.ones(50000))\n"
        "with concurrent.futures.ThreadPoolExecutor(4) as pool:\n"
        "    found = list(pool.map(lambda _: scan(queries, documents), range(64)))\n"
        "assert all(numpy.array_equal(one, found[0]) for one in found)\n"
    )
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
