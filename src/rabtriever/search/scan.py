"""The exact scan of the whole corpus on a CPU: one fused loop over the folded documents, compiled by numba.

Per document it costs m additions, m relus and one product of m + n numbers, and it is bound by memory bandwidth. The
documents are visited in blocks that stay in cache while all queries of the call are scored against them.
"""

from __future__ import annotations

import threading

import numba
import numpy as np
import torch

from rabtriever.models.predictor import FoldedDocuments, FoldedQueries

BLOCK = 64
# a server answers requests in threads, and one of numba's pools ends the process when two threads use it at once
_ALONE = threading.Lock()


@numba.njit(parallel=True, fastmath=True, cache=True)
def _scan(a, v, c, r_q, u, e, r_d):
    num_queries, num_documents = a.shape[0], u.shape[0]
    hidden, products = a.shape[1], c.shape[1]
    scores = np.empty((num_queries, num_documents), dtype=np.float32)
    for block in numba.prange((num_documents + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        last = min(first + BLOCK, num_documents)
        for query in range(num_queries):
            for document in range(first, last):
                total = r_d[document] + r_q[query]
                for unit in range(hidden):
                    total += v[unit] * max(a[query, unit] + u[document, unit], np.float32(0.0))
                for unit in range(products):
                    total += c[query, unit] * e[document, unit]
                scores[query, document] = total
    return scores


def scan(queries: FoldedQueries, documents: FoldedDocuments) -> np.ndarray:
    """(Q, N) float32 scores of all queries against all documents; equal to `folded_scores` up to rounding.

    Runs on as many threads as torch does, one call at a time.
    """
    arrays = [
        np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)
        for tensor in (queries.additive, queries.weights, queries.products, queries.bias, *documents)
    ]
    with _ALONE:
        threads = torch.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        scores = _scan(*arrays)
        # numba's pool is torch's own OpenMP, and starting it set torch's thread count to all cores
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
    return scores
