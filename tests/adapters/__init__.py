"""Tests of the adapters. A package, so that its folders don't hide the SDKs that they are named after."""

import pytest

pytest.register_assert_rewrite("kitaru_nb.testing.adapter", "adapters.endpoint")
