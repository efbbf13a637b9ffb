"""Statistics: pure functions of arrays and numbers, each with formula, source and an example.

NumPy and ``scipy.special`` are imported when a function is called, so that a session without
samples pays for neither. Nothing here knows pytest, MLflow or a gate.
"""
