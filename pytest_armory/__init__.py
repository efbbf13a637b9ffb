"""Evaluations as tests, tests as tracked MLflow runs."""
