"""How models learn: losses, optimisers, mining, teacher labels, and one Lightning module for each model.

Only here is Lightning imported. It may import every room before it, which ends with `search`.
"""
