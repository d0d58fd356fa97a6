"""What each section of params.yaml has to be: all of them are read before the first stage, not when its turn comes."""

from __future__ import annotations

from collections.abc import Iterable

from flows.backbone import BackboneParams
from flows.common import PARAMS
from flows.embed_corpus import EmbedParams
from rabtriever.backbone import SmallModelParams
from rabtriever.contrastive import BiencoderParams, ContrastiveParams
from rabtriever.evaluation import EvaluateParams
from rabtriever.mining import MiningParams
from rabtriever.params import load_params
from rabtriever.polishing import PolishParams
from rabtriever.predictor import PredictorParams
from rabtriever.preparation import PrepareParams
from rabtriever.promotion import GateParams
from rabtriever.prompt import PromptParams
from rabtriever.seeding import SeedParams
from rabtriever.shortlist import IndexParams
from rabtriever.student import StudentParams
from rabtriever.teacher import TeacherParams

SECTIONS = {
    "random": SeedParams,
    "prompt": PromptParams,
    "prepare": PrepareParams,
    "backbone": BackboneParams,
    "small_model": SmallModelParams,
    "warmup": ContrastiveParams,
    "train_biencoder": BiencoderParams,
    "train_teacher": TeacherParams,
    "polish": PolishParams,
    "embed_corpus": EmbedParams,
    "mine": MiningParams,
    "predictor": PredictorParams,
    "distill": StudentParams,
    "index": IndexParams,
    "evaluate": EvaluateParams,
    "promote": GateParams,
}


def check_values(sections: Iterable[str] = SECTIONS) -> None:
    """Reads sections of params.yaml as their stages will.

    Raises:
        ParamsError: an entry that is unknown, missing, of the wrong type or out of range.
    """
    for section in sections:
        load_params(SECTIONS[section], section, PARAMS)
