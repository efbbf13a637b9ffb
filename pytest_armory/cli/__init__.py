"""The commands ``pytest-armory`` and ``armory-mlflow-server``.

``main`` is ``pytest-armory``, and each of its commands is a module of the same name, with ``HELP``,
``add_arguments`` and ``run``. ``server`` is ``armory-mlflow-server``.
"""
