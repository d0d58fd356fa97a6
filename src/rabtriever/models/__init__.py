"""What is trained and served: the reranker (the teacher), its score's document terms, and the student's predictor.

A module here computes scores and states; how it learns is in `training`. It imports `core`, `data` and `lm`.
"""
