"""The commands ``pytest-armory`` and ``armory-mlflow-server``.

``main`` is ``pytest-armory``, and each of its commands is a file named like it, with ``HELP``,
``add_arguments`` and ``run``. ``server`` is ``armory-mlflow-server``.
"""
