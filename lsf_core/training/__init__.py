"""Everything that makes a checkpoint: data, synthesised performances, the two training stages, evaluation.

Nothing here is needed to animate; the packages that only training needs are imported here alone.
"""
