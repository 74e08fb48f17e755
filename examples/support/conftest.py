from loquat.testing import pytest_pyfunc_call  # noqa: F401  (runs async tests)
