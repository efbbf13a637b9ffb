"""The commands ``pytest-armory`` and ``armory-mlflow-server``."""
