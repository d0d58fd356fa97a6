"""The retriever folder: what a retriever is made of, read and written. Nothing is pickled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from rabtriever.core.artifacts import (
    CARD,
    ArtifactMismatchError,
    Manifest,
    atomic_folder,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from rabtriever.core.tensors import restore, tensor_file
from rabtriever.data.beir_io import Corpus, read_corpus, write_corpus
from rabtriever.lm.backbone import default_device
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.prompt import Prompt, PromptParams
from rabtriever.models.predictor import FoldedDocuments, Predictor
from rabtriever.search.calibration import CALIBRATION, Calibration, read_calibration, write_calibration
from rabtriever.search.scorer import Scorer
from rabtriever.search.shortlist import IndexParams, Projections

KIND = "retriever"
SETTINGS = "settings.json"  # in a file, so that a retriever that searches otherwise is another one by its hash
_SHORTLIST, _PROJECTIONS, _PREDICTOR = "shortlist.faiss", "shortlist.safetensors", "predictor.safetensors"


class Parts(NamedTuple):
    """What a retriever is made of.

    Attributes:
        scorer: encoders, predictor and answer direction.
        corpus: documents by id, in row order.
        folded: the index's view of the documents.
        params: when and how the shortlist is used.
        projections: of the shortlist; None where the corpus is scanned.
        index: gives the FAISS index of the shortlist, which takes time to read; None where the corpus is scanned.
        calibration: from score to probability; None where none was fitted.
    """

    scorer: Scorer
    corpus: Corpus
    folded: FoldedDocuments
    params: IndexParams
    projections: Projections | None = None
    index: Callable[[], Any] | None = None
    calibration: Calibration | None = None


def read_retriever(folder: str | Path) -> tuple[Parts, Manifest]:
    """What a retriever folder holds, after verifying every file of it.

    Raises:
        FileNotFoundError: no such folder, or no manifest in it.
        ArtifactMismatchError: a file is missing, changed or foreign, counts disagree, or other code has written it
            with settings that this code does not know.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, KIND)
    try:
        settings = read_json(folder / SETTINGS)
        scorer, params = _load_scorer(folder, settings), IndexParams(**settings["index"])
    except (FileNotFoundError, KeyError, TypeError) as error:
        raise ArtifactMismatchError(
            f"{folder} has other settings than this code knows ({type(error).__name__}: {error}); search it with "
            "the code that wrote it, or build the index again"
        ) from error
    tensors = _read_tensors(folder / "documents.safetensors")
    folded = FoldedDocuments(tensors["additive"], tensors["products"], tensors["bias"])
    corpus = read_corpus(folder / "corpus.jsonl")
    _check_counts(folder, {"texts": len(corpus), "folded documents": len(folded.bias)})
    calibration = read_calibration(folder / CALIBRATION)
    if _SHORTLIST not in manifest.files:
        return Parts(scorer, corpus, folded, params, calibration=calibration), manifest
    projections = Projections(scorer.encoder.width, params.dimension)
    restore(projections, _read_tensors(folder / _PROJECTIONS), folder / _PROJECTIONS)
    index = partial(_read_index, folder, len(corpus))
    return Parts(scorer, corpus, folded, params, projections, index, calibration), manifest


def write_retriever(
    folder: str | Path, made: Parts, parents: dict[str, str], info: dict[str, Any], card: str | None = None
) -> Manifest:
    """Writes a retriever as one self-contained folder, replacing an older one only when complete.

    Args:
        folder: where it goes.
        made: what it is made of.
        parents: hash of each artefact it was made from, by name.
        info: further facts for the manifest.
        card: what people read of it, as Markdown.
    """
    scorer = made.scorer
    with atomic_folder(folder) as target:
        scorer.encoder.save(target / "encoder")
        state = {**scorer.predictor.state_dict(), "direction": scorer.direction}
        _write_tensors(target / _PREDICTOR, state)
        _write_tensors(target / "documents.safetensors", made.folded._asdict())
        if made.projections is not None and made.index is not None:
            _write_tensors(target / _PROJECTIONS, made.projections.state_dict())
            _write_index(target / _SHORTLIST, made.index())
        write_corpus(target / "corpus.jsonl", made.corpus)
        if made.calibration is not None:
            write_calibration(target / CALIBRATION, made.calibration)
        if card is not None:
            (target / CARD).write_text(card, encoding="utf-8", newline="\n")
        predictor = {
            "hidden": scorer.predictor.shape.hidden,
            "products": scorer.predictor.shape.products,
            "similarity": scorer.predictor.similarity,
        }
        settings = {"prompt": asdict(scorer.prompt.params), "predictor": predictor, "index": asdict(made.params)}
        write_json(target / SETTINGS, settings)
        facts = {
            **settings,
            "num_documents": len(made.corpus),
            "dimension": scorer.predictor.width,
            "bytes_per_document": 4 * scorer.predictor.numbers_per_document,
            **info,
        }
        return write_manifest(target, KIND, parents, facts)


def _check_counts(folder: Path, counts: dict[str, int]) -> None:
    if len(set(counts.values())) != 1:
        raise ArtifactMismatchError(f"{folder}: counts disagree ({counts}); build the index again")


def _read_index(folder: Path, documents: int) -> Any:
    import faiss

    index = faiss.read_index(str(folder / _SHORTLIST))
    _check_counts(folder, {"texts": documents, "shortlist vectors": index.ntotal})
    return index


def _write_index(path: Path, index: Any) -> None:
    import faiss

    faiss.write_index(index, str(path))


def _load_scorer(folder: Path, settings: dict[str, Any]) -> Scorer:
    encoder = load_backbone(folder / "encoder", device=default_device())
    state = _read_tensors(folder / _PREDICTOR)
    direction = state.pop("direction")
    predictor = Predictor(encoder.width, **settings["predictor"])
    restore(predictor, state, folder / _PREDICTOR)
    prompt = Prompt(encoder.tokenizer, PromptParams(**settings["prompt"]), encoder.context)
    return Scorer(encoder, prompt, predictor.eval(), direction)


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(tensor_file(path))
