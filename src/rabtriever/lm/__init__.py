"""A language model as a function from tokens to hidden states: where it is found, loading, prompts, batching, adapters.

It knows nothing of relevance or of training targets. It imports `core` and `data`.
"""
