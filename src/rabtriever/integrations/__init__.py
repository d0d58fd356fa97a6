"""Retrievers in other frameworks: one module for each, which needs the extra of its name.

`rabtriever.integrations.langchain`, `.llamaindex`, `.haystack` and `.mteb`; nothing else imports these frameworks.
"""
