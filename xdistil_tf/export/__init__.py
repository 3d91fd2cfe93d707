"""From a trained student to a SavedModel that is proven equal to it.

Nothing is imported here: an ids-only SavedModel must load, and be checked, in a process that
never imports `tensorflow_text`.
"""
