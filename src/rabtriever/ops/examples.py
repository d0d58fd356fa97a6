"""Example queries for documentation, help texts and health checks; all are test queries of data/household.

The retriever of the shipped settings answers each with a document that was judged relevant. Its answers are in
docs/evaluation/examples.json. tests/test_examples.py checks that no page or help text shows another query.
"""

EXAMPLES = (
    "I forgot to take the meat out last night. My arms are weak and I can see the guests coming.",
    "The lid has won again. What is more, my hands have a rash. My fingers are stiff with arthritis.",
    "A good bottle and no way in. My train goes in ten minutes and the landlady is strict.",
    "I need it done by this evening, and the street lamp reads my book with me. The twins have finally dropped off.",
)
EXAMPLE = EXAMPLES[0]
EXAMPLE_DOCUMENT = "d426"  # the first document found for EXAMPLE: the hot tap, which thaws meat fast
