"""Flow of stage embed_corpus, `python -m flows.embed_corpus`."""

from prefect import flow

from flows.common import main, tracked
from rabtriever.training.stages import embed_corpus as stage


@flow(name="embed_corpus")
def embed_corpus() -> str:
    """What the stage's `run` returns."""
    return tracked(stage, "embed_corpus")


if __name__ == "__main__":
    main(embed_corpus)
