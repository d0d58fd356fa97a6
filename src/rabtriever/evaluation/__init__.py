"""What a result is: the systems of the table, the stage that measures them, and the plots.

It may import every room before it, which ends with `training`.
"""
