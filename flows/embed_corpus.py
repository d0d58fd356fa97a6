"""Flow of stage embed_corpus, `python -m flows.embed_corpus`."""

from prefect import flow

from flows.common import command, tracked
from rabtriever.training.stages import embed_corpus as stage


@flow(name="embed_corpus")
def embed_corpus() -> str:
    """Encodes all documents and training queries with the teacher."""
    return tracked(stage, "embed_corpus")


if __name__ == "__main__":
    command(embed_corpus)
