import pytest

pytest.register_assert_rewrite("tests.audit")  # what the audit found is the evidence, not that it found something
