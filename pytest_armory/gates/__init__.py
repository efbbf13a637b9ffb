"""Gates: their notation, the baseline that a session is compared with, and the judging.

``parse`` reads bounds, tolerances and references; ``verdicts`` judges metrics by them; both are
pure. ``baselines`` looks up the runs of a reference, and is the only one that uses the store.
"""
